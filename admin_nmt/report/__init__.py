"""`admin-nmt report`: training runs side by side on one page."""
