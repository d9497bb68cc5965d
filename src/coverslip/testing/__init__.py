"""On top: the contract suites, one a kind of plug-in. Import them in the tests of your own plug-ins."""
