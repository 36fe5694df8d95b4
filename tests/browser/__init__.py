"""The dashboard in a real browser: Debian's chromium, driven by Playwright. Skipped where there is none."""
