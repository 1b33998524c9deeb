"""One kind of run per file; `fkd.runs.kind.KINDS` finds them."""
