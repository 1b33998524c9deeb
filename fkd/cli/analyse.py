"""``python -m fkd analyse``: attack and certify one pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.measurement import place_text, run_measurement
from fkd.cli.options import settings_text
from fkd.cli.output import format_table, gap, percent

if TYPE_CHECKING:
    from fkd.evaluation import Analysis, AnalysisConfig, Summary

_DESCRIPTION = (
    "Attack and certify a teacher and a student inside an epsilon-ball. A stored answer is reused; "
    "epsilon may be written 0.03 or 8/255. How tight the bounds are to be is the level: "
    "--certificate name=fast, name=tight (slower) or name=exact seconds=30 (as long as you give it); "
    "below are all of them with their settings."
)


def run(arguments: Sequence[str]) -> int:
    """Analyse one pair, print its summary, and write its table where asked."""
    from fkd.evaluation import AnalysisConfig, analyse

    return run_measurement(
        "analyse",
        arguments,
        AnalysisConfig,
        analyse,
        describe,
        description=_DESCRIPTION,
        anew="Compute",
        epilog=lambda: levels_text(AnalysisConfig),
    )


def describe(analysis: Analysis, out: Path | None) -> str:
    """The verdict and the figures behind it."""
    from fkd.evaluation import summarise, witness_path

    summary = summarise(analysis.table)
    config = analysis.config
    head = (
        f"{config.student} against {config.teacher} on {config.dataset} ({config.split}), "
        f"{config.ball.describe()}, {summary.count} examples, seed {config.seed}"
    )
    parts = [
        summary.verdict,
        "",
        head,
        _costs(analysis),
        "",
        format_table(_shares(summary)),
        "",
        format_table(_gaps(summary)),
        "",
    ]
    if summary.certified_missing:
        reasons = analysis.table.certificate_reason.dropna()
        why = f" ({reasons.iloc[0]})" if len(reasons) else ""
        parts.append(f"Without a certificate: {summary.certified_missing} examples{why}")
    parts.append(place_text(analysis, out))
    if out is not None:
        if analysis.witnesses:
            parts.append(f"Witnesses: {witness_path(out)}")
        else:
            parts.append("Witnesses: none come with this table; --fresh computes it with them.")
    return "\n".join(parts)


def _costs(analysis: Analysis) -> str:
    """The certificate and the seconds an example of it and of the attack, where they are known."""
    from fkd.evaluation import level_figures

    figures = level_figures(analysis)
    seconds = [
        f"{name} {figures[f'{name}_seconds']:.2g} s"
        for name in ("certificate", "attack")
        if figures[f"{name}_seconds"] is not None
    ]
    cost = f"; an example took: {', '.join(seconds)}" if seconds else ""
    return f"Certificate: {figures['settings']}{cost}"


def _shares(summary: Summary) -> list[dict[str, str]]:
    shares = {
        "teacher right": summary.teacher_accuracy,
        "student right": summary.student_accuracy,
        "same prediction": summary.agreement_clean,
        "agreement certified": summary.agreement_certified,
        "disagreement found": summary.disagreement_found,
        "undecided": summary.open_share,
    }
    return [{"examples": what, "share": percent(share)} for what, share in shares.items()]


def _gaps(summary: Summary) -> list[dict[str, str]]:
    rows = {
        "clean image": (summary.gap_clean_mean, None, None),
        "found by attack": (
            summary.gap_attack_mean,
            summary.gap_attack_p95,
            summary.gap_attack_max,
        ),
        "certified bound": (
            summary.gap_certified_mean,
            summary.gap_certified_p95,
            summary.gap_certified_max,
        ),
    }
    return [
        {
            "confidence gap": what,
            **{
                column: gap(value, is_bound=what == "certified bound")
                for column, value in zip(("mean", "95 %", "max"), values, strict=True)
            },
        }
        for what, values in rows.items()
    ]


def levels_text(config: type[AnalysisConfig]) -> str:
    """Every attack and certificate with its settings, those marked that ``config`` takes by default."""
    from fkd.attacks import ATTACKS
    from fkd.bounds import CERTIFICATES

    lines = []
    for option, registry in (("attack", ATTACKS), ("certificate", CERTIFICATES)):
        usual = config.model_fields[option].get_default(call_default_factory=True)
        for name, summary in registry.available().items():
            is_usual = " (the default)" if name == usual.name else ""
            lines += [
                f"--{option} name={name}{is_usual}: {summary}",
                settings_text(registry.get(name).Config, skip=("name",)),
            ]
    return "\n".join(lines)
