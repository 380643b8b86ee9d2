LATE = " (late)"
