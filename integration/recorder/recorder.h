// The RECORDER actor: writes what SCHEDULERs take and decide to a log (log_file.h) as they tell it; nothing waits for it. It flushes ten
// times a second.
#pragma once

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <string>

#include "integration/recorder/log_file.h"
#include "runtime/base/result.h"
#include "schema/record.h"

namespace foretoken {

struct RecordCall {
  LogRecord record;
};
// Answered by a RecorderStatus.
struct RecorderQuery {};
struct RecorderStatus {
  uint64_t records = 0;
  uint64_t bytes = 0;
  uint64_t dropped = 0;
  std::string error;
};

// The log begins with `session`.
caf::actor SpawnRecorder(caf::actor_system& system, LogWriter log, const SessionRecord& session);
// What a SCHEDULER is given (SchedulerActorOptions::record): sends to the RECORDER under the SCHEDULER's number.
std::function<void(LogRecord)> RecordTo(const caf::actor& recorder, uint32_t scheduler);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RecordCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RecorderQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RecorderStatus)
