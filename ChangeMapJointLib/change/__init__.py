"""Change maps, candidates, findings and the lesion pairs behind them."""
