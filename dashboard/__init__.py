"""The Streamlit dashboard: it asks fkd and draws, and does no mathematics itself."""
