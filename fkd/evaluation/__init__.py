"""Pairs measured: data, teacher, student and ball in; tables, summaries and details out."""

from fkd.evaluation._saved_chunks import finished_examples
from fkd.evaluation._scores_table import SCORE_COLUMNS
from fkd.evaluation._stored_tables import shipped_dir, witness_path
from fkd.evaluation.claims import Claim, check_claims
from fkd.evaluation.compare import compare
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, parse_analysis
from fkd.evaluation.detail import (
    ExampleDetail,
    example_detail,
    gap_curve,
    reproduce_snippet,
)
from fkd.evaluation.leaderboard import (
    STUDENT_COLUMNS,
    leaderboard,
    leaderboard_of,
    recipe,
    score_configs,
    score_students,
)
from fkd.evaluation.leaderboard_charts import (
    agreement_shares,
    is_best,
    is_copy,
    pooled_reliability,
    ranked,
    teachers_value,
)
from fkd.evaluation.leaderboard_summary import (
    SPREAD_COLUMNS,
    figures_of,
    leaderboard_columns,
    pareto,
    spread,
)
from fkd.evaluation.leaderboard_text import (
    LEADERBOARD_FORMATS,
    figure_text,
    latex_table,
    leaderboard_bytes,
)
from fkd.evaluation.levels import certificate_text, compare_levels, level_figures, time_budget
from fkd.evaluation.measures import MEASURES_COLUMNS, MeasuresConfig, measure_names
from fkd.evaluation.measures_store import Measured, find_measures, measure_pair, measures_key
from fkd.evaluation.measures_summary import (
    MeasureSummary,
    Spread,
    WhoStaysRight,
    measure_curve,
    measures_summary,
    who_stays_right,
)
from fkd.evaluation.pair import SOUNDNESS_TOLERANCE, analyse, attack_examples, check_soundness
from fkd.evaluation.plane import GapPlane, gap_plane, plane_of
from fkd.evaluation.radius import (
    LARGEST_RADIUS,
    RADIUS_COLUMNS,
    RadiusConfig,
    agreement_radii,
)
from fkd.evaluation.radius_store import Radii, find_radii, radius_key, search_radii
from fkd.evaluation.radius_summary import (
    RADIUS_STATUSES,
    RadiusSummary,
    found_radius_text,
    proved_radius_text,
    radius_summary,
)
from fkd.evaluation.robustness import (
    ROBUSTNESS_COLUMNS,
    ResolvedModel,
    RobustnessConfig,
    attack_model,
    check_measurement,
)
from fkd.evaluation.robustness_store import (
    ROBUSTNESS_FOLDER,
    Robustness,
    find_robustness,
    measure_robustness,
    reproduce_robustness,
    robustness_key,
)
from fkd.evaluation.robustness_summary import (
    RobustnessSummary,
    Share,
    cross_robustness,
    measurement_names,
    robustness_summary,
    wilson_share,
)
from fkd.evaluation.rounding import bound_text, reached_text
from fkd.evaluation.saliency import GapSaliency, gap_saliency, per_pixel, saliency_of
from fkd.evaluation.scored_pair import ScoredPair, ScoresConfig
from fkd.evaluation.scores import SCORES, Figure, ScoreGroup, all_figures, group_names, group_of
from fkd.evaluation.scores.calibration import RELIABILITY_COLUMNS
from fkd.evaluation.scores_store import (
    Scores,
    find_scores,
    score_pair,
    scores_key,
    stored_scores,
)
from fkd.evaluation.side_by_side import SideBySide, side_by_side
from fkd.evaluation.store import (
    Analysis,
    AnalysisEntry,
    find_analysis,
    list_analyses,
    save_analysis,
)
from fkd.evaluation.summary import Summary, certified_curve, histogram, summarise
from fkd.evaluation.transfer import TRANSFER_COLUMNS, ResolvedTransfer, TransferConfig
from fkd.evaluation.transfer_store import (
    Transfer,
    find_transfer,
    transfer_key,
    transfer_witnesses,
)
from fkd.evaluation.transfer_summary import (
    TransferCell,
    TransferGain,
    TransferSummary,
    transfer_summary,
)

__all__ = [
    "LARGEST_RADIUS",
    "LEADERBOARD_FORMATS",
    "MEASURES_COLUMNS",
    "RADIUS_COLUMNS",
    "RADIUS_STATUSES",
    "RELIABILITY_COLUMNS",
    "ROBUSTNESS_COLUMNS",
    "ROBUSTNESS_FOLDER",
    "SCORES",
    "SCORE_COLUMNS",
    "SOUNDNESS_TOLERANCE",
    "SPREAD_COLUMNS",
    "STUDENT_COLUMNS",
    "TRANSFER_COLUMNS",
    "Analysis",
    "AnalysisConfig",
    "AnalysisEntry",
    "Claim",
    "ExampleDetail",
    "Figure",
    "GapPlane",
    "GapSaliency",
    "MeasureSummary",
    "Measured",
    "MeasuresConfig",
    "Radii",
    "RadiusConfig",
    "RadiusSummary",
    "ResolvedModel",
    "ResolvedPair",
    "ResolvedTransfer",
    "Robustness",
    "RobustnessConfig",
    "RobustnessSummary",
    "ScoreGroup",
    "ScoredPair",
    "Scores",
    "ScoresConfig",
    "Share",
    "SideBySide",
    "Spread",
    "Summary",
    "Transfer",
    "TransferCell",
    "TransferConfig",
    "TransferGain",
    "TransferSummary",
    "WhoStaysRight",
    "agreement_radii",
    "agreement_shares",
    "all_figures",
    "analyse",
    "attack_examples",
    "attack_model",
    "bound_text",
    "certificate_text",
    "certified_curve",
    "check_claims",
    "check_measurement",
    "check_soundness",
    "compare",
    "compare_levels",
    "cross_robustness",
    "example_detail",
    "figure_text",
    "figures_of",
    "find_analysis",
    "find_measures",
    "find_radii",
    "find_robustness",
    "find_scores",
    "find_transfer",
    "finished_examples",
    "found_radius_text",
    "gap_curve",
    "gap_plane",
    "gap_saliency",
    "group_names",
    "group_of",
    "histogram",
    "is_best",
    "is_copy",
    "latex_table",
    "leaderboard",
    "leaderboard_bytes",
    "leaderboard_columns",
    "leaderboard_of",
    "level_figures",
    "list_analyses",
    "measure_curve",
    "measure_names",
    "measure_pair",
    "measure_robustness",
    "measurement_names",
    "measures_key",
    "measures_summary",
    "pareto",
    "parse_analysis",
    "per_pixel",
    "plane_of",
    "pooled_reliability",
    "proved_radius_text",
    "radius_key",
    "radius_summary",
    "ranked",
    "reached_text",
    "recipe",
    "reproduce_robustness",
    "reproduce_snippet",
    "robustness_key",
    "robustness_summary",
    "saliency_of",
    "save_analysis",
    "score_configs",
    "score_pair",
    "score_students",
    "scores_key",
    "search_radii",
    "shipped_dir",
    "side_by_side",
    "spread",
    "stored_scores",
    "summarise",
    "teachers_value",
    "time_budget",
    "transfer_key",
    "transfer_summary",
    "transfer_witnesses",
    "who_stays_right",
    "wilson_share",
    "witness_path",
]
