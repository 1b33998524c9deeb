"""This project's own bound propagation: networks read as graphs, intervals, linear relaxation."""
