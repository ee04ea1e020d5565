// Membership: who belongs to a fleet at run time, and what may be said about it. A member is a name (an address, for engines behind HTTP) under
// an id that is never given to another; it is wanted by whoever named it - commands, a watched file, a DNS name - and leaves when none of them
// wants it any more: it takes nothing new, and is gone when what it had has ended. Every change is idempotent: said twice, it says the
// same and changes nothing. What cannot be done is refused with the way out.
// Pure: the caller makes and ends what a member stands for.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/model/instance.h"

namespace foretoken {

// Who wants a member.
enum class MemberSource : uint8_t { kCommand, kFile, kDns };

class Membership {
 public:
  struct Member {
    InstanceId id;
    std::string name;
    InstanceState state = InstanceState::kServing;  // kServing, kCordoned or kDraining
    uint32_t wanted_by = 0;                         // a bit per MemberSource
    bool leaving = false;                           // gone when it is empty
  };
  struct Change {
    InstanceId id;
    bool changed = false;
    bool fresh = false;  // a member that was not there: the caller makes it
  };
  // What a list names, against what the same source named before.
  struct Difference {
    std::vector<std::string> join;
    std::vector<InstanceId> leave;
  };
  struct Counters {
    uint64_t joined = 0;
    uint64_t left = 0;  // asked to
    uint64_t gone = 0;
    uint64_t repeated = 0;  // changes that had been made already
    uint64_t refused = 0;
  };

  // It joins under `fresh_id`, unless it is there already; one that was leaving stays.
  Change Add(const std::string& name, MemberSource source, InstanceId fresh_id);
  // `source` wants it no more; a command speaks for all. It leaves if nobody wants it.
  Change Remove(InstanceId id, MemberSource source);
  // Error: it is leaving, so that the state is not the operator's to set.
  Result<Change> SetState(InstanceId id, InstanceState state);
  // It has nothing left of what it was given. True: it is gone, and the caller may end it.
  bool OnEmpty(InstanceId id);
  // It turned out to be another than it was (an address that another engine has taken): leaves at once, whoever wants it.
  void OnReplaced(InstanceId id);

  Difference Compare(const std::vector<std::string>& names, MemberSource source) const;

  const Member* Find(InstanceId id) const;
  // The one of that name that is not leaving, or else the one that is.
  const Member* Find(std::string_view name) const;
  // By name, or by its number.
  Result<InstanceId> Named(std::string_view name_or_number) const;
  // By name or number: one that has left (of the names, the last thousand).
  bool HasLeft(std::string_view name_or_number) const;
  const std::map<InstanceId, Member>& members() const { return members_; }
  const Counters& counters() const { return counters_; }

 private:
  static uint32_t Bit(MemberSource source) { return 1U << static_cast<uint32_t>(source); }
  Member* Get(InstanceId id);

  std::map<InstanceId, Member> members_;
  uint32_t next_ = 0;  // above every id that there ever was
  std::deque<std::string> left_names_;
  mutable Counters counters_;
};

}  // namespace foretoken
