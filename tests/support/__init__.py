"""What the tests stand on: a server that fails on purpose, a loop without waiting, secrets to look for."""
