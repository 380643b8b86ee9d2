raise AssertionError("a disabled function is not imported")
