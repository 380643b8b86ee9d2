GREETING = "Hello, "
