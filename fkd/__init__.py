"""fkd: how faithfully does a student network imitate its teacher inside an epsilon-ball?

One way through the code: ``data -> models -> distillation -> attacks and bounds -> evaluation ->
records -> dashboard``.  ``fkd`` never imports streamlit or plotly.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
