from settings_of_app import read

read({})
