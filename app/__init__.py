"""The Flower app: joins tasks and strategies. What ``flwr run`` loads, and the ``fedkeras`` command."""
