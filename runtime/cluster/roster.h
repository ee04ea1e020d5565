// Roster: the instances of a cluster of nodes, as one node knows them. Those of the topology are known to all from the start; others join while
// the cluster runs. The node that runs an instance gives it its number, which is never another's, and says so to all; the others
// remember it for that node, which learns from them after a restart what it had.
//
// For each number knowledge only grows: unknown, then a member, then gone. So notices may come twice, in any order and by any way, and all
// nodes that have heard the same know the same. Pure: the caller makes and ends what a member stands for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/cluster/ownership.h"

namespace foretoken {

struct RosterMember {
  InstanceId instance;
  std::string name;
  InstanceId kind;   // the instance of the topology that it is like; itself, for one of the topology
  NodeId engine;     // runs the INSTANCE
  NodeId simulator;  // home of its SIMULATOR
  uint64_t config_version = 0;
  bool operator==(const RosterMember&) const = default;
};

class Roster {
 public:
  // Numbers that a node can give in the life of a cluster: its restart does not bring them back.
  static constexpr uint32_t kNumbersPerNode = 65536;

  // `members`: the topology's, numbered from 0. `nodes`: in the topology.
  Roster(std::vector<RosterMember> members, size_t nodes);

  // Above every number that can ever be.
  uint32_t limit() const { return topology_ + nodes_ * kNumbersPerNode; }
  // The next one that `self` may give. Error: it has given all.
  Result<InstanceId> Fresh(NodeId self) const;

  // True: it is news. False: known already, or gone. Error: impossible, or the number is another's: the first one stays.
  Result<bool> Join(const RosterMember& member);
  // It has left for good. True: it is news. A number that never joined here may have left as well.
  bool Leave(InstanceId instance);

  // Null: unknown, or gone.
  const RosterMember* Find(InstanceId instance) const;
  // By name, or else by number. Of two of one name (two nodes were told at once) the lower number.
  const RosterMember* Named(std::string_view name_or_number) const;
  bool IsGone(InstanceId instance) const;
  bool Joined(InstanceId instance) const { return instance.value() >= topology_; }  // at run time
  // Ends behind the highest number heard of.
  uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
  std::vector<InstanceId> Gone() const;

 private:
  struct Entry {
    std::optional<RosterMember> member;
    bool gone = false;
  };

  Entry& At(InstanceId instance);

  std::vector<Entry> entries_;  // by number
  uint32_t topology_;
  uint32_t nodes_;
};

}  // namespace foretoken
