#include <type_traits>

#include "integration/transport/node_links.h"

namespace foretoken {
namespace {

class Shift {
 public:
  explicit Shift(Duration by) : by_(by.nanos()) {}

  void operator()(StreamMessage& m) const {
    At(m.sent);
    std::visit(*this, m.body);
  }
  void operator()(Hello&) const {}
  void operator()(Arrived& m) const { At(m.at); }
  void operator()(Aborted& m) const { At(m.at); }
  void operator()(BlocksHashed& m) const { At(m.at); }
  void operator()(BatchTrace& m) const {
    At(m.scheduled);
    At(m.start);
  }
  void operator()(Snapshot& m) const {
    At(m.as_of);
    if (!m.exact) return;
    for (Snapshot::RequestBlocks& r : m.exact->requests) At(r.arrival);
    for (Snapshot::InFlight& step : m.exact->in_flight) At(step.start);
  }
  void operator()(Heartbeat& m) const {
    At(m.at);
    At(m.in_flight_since);
  }
  void operator()(Aggregate& m) const { At(m.at); }
  void operator()(ResyncRequest&) const {}
  void operator()(Schedule& m) const {
    Request(m.request);
    At(m.submitted);
  }
  void operator()(Decision& m) const { Times(m.stamps); }
  void operator()(Predict& m) const {
    Request(m.question.request);
    At(m.submitted);
  }
  void operator()(PredictReply& m) const {
    At(m.prediction.as_of);
    Times(m.stamps);
  }
  void operator()(PredictBatch& m) const {
    Request(m.question.request);
    At(m.submitted);
  }
  void operator()(PredictionBatch& m) const {
    for (Prediction& p : m.predictions) At(p.as_of);
    Times(m.stamps);
  }
  void operator()(EnqueueRequest& m) const {
    Request(m.question.request);
    At(m.at);
  }
  void operator()(EnqueueReply& m) const { At(m.fresh.as_of); }
  void operator()(Cancel&) const {}
  void operator()(Dispatch& m) const {
    Request(m.request);
    At(m.at);
  }
  void operator()(TokenEvent& m) const { At(m.at); }
  void operator()(RequestOutcome& m) const { At(m.at); }
  void operator()(NodeHello&) const {}
  void operator()(NodeHeartbeat&) const {}
  void operator()(OwnershipNotice&) const {}
  void operator()(ControlRequest&) const {}
  void operator()(ControlReply&) const {}

 private:
  void At(Instant& at) const {
    int64_t sum = 0;
    if (__builtin_add_overflow(at.nanos(), by_, &sum)) sum = by_ > 0 ? Instant::Max().nanos() : -Instant::Max().nanos();
    at = Instant::FromNanos(sum);
  }
  void Request(RequestMeta& request) const { At(request.arrival); }
  void Times(Stamps& s) const {
    At(s.submitted);
    At(s.started);
    At(s.ended);
  }

  int64_t by_;
};

}  // namespace

void ShiftTimes(Message& message, Duration offset) {
  if (offset != Duration()) std::visit(Shift(offset), message);
}

}  // namespace foretoken
