//   SCHEDULER --RecordCall--> RECORDER
#include "integration/recorder/recorder.h"

#include <caf/all.hpp>
#include <utility>

namespace foretoken {
namespace {

constexpr std::chrono::milliseconds kFlushInterval(100);
constexpr int kFlushesPerSync = 10;

struct FlushTick {};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::FlushTick)

namespace foretoken {
namespace {

struct RecorderState {
  std::unique_ptr<LogWriter> log;
  int flushes = 0;
  static inline const char* name = "recorder";
};

struct Setup {
  LogWriter log;
  SessionRecord session;
};

caf::behavior Recorder(caf::stateful_actor<RecorderState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.log = std::make_unique<LogWriter>(std::move(setup->log));
  LogWriter* log = self->state.log.get();
  log->Append({Instant(), 0, setup->session});
  log->Flush();
  self->delayed_send(self, kFlushInterval, FlushTick{});
  return {
      [log](const RecordCall& call) { log->Append(call.record); },
      [self, log](FlushTick) {
        if (++self->state.flushes % kFlushesPerSync == 0) {
          log->Sync();
        } else {
          log->Flush();
        }
        self->delayed_send(self, kFlushInterval, FlushTick{});
      },
      [log](RecorderQuery) {
        return RecorderStatus{log->records(), log->bytes(), log->dropped(), log->error()};
      },
  };
}

}  // namespace

caf::actor SpawnRecorder(caf::actor_system& system, LogWriter log, const SessionRecord& session) {
  return system.spawn(Recorder, std::make_shared<Setup>(Setup{std::move(log), session}));
}

std::function<void(LogRecord)> RecordTo(const caf::actor& recorder, uint32_t scheduler) {
  return [recorder, scheduler](LogRecord record) {
    record.scheduler = scheduler;
    caf::anon_send(recorder, RecordCall{std::move(record)});
  };
}

}  // namespace foretoken
