#!/usr/bin/env python3
"""A fleet that grows and shrinks under load, engines and nodes that are restarted in turn, an address that another model takes: no failed request,
none given to who was told to leave. membership_run.py without --small is the same at full size."""
import json
import unittest

from tests.integration.e2e import membership_run


class MembershipTest(unittest.TestCase):
    def shown(self, part):
        print(json.dumps(part))
        self.assertEqual(part["failed"], 0)

    def test_a_fleet_grows_and_shrinks(self):
        self.shown(membership_run.grow_and_shrink((2, 4, 1), 4))

    def test_every_engine_is_restarted_and_an_address_taken_by_another_model(self):
        self.shown(membership_run.restart_engines(3, 40, 1))

    def test_instances_of_nodes_join_and_leave(self):
        self.shown(membership_run.grow_nodes((2, 4, 1), 2, 5))

    def test_every_node_is_restarted(self):
        self.shown(membership_run.restart_nodes(20, 500, 0.5))


if __name__ == "__main__":
    unittest.main()
