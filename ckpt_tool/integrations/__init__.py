"""Callbacks for other libraries' training loops. Each module imports the library that it is named
after, and nothing else imports these modules.
"""
