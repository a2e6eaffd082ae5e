"""Known motion and known lesions, put into real scans."""
