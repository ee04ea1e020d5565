#include "integration/engines/vllm/live_mirror.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "runtime/base/check.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/sync/map_times.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

constexpr Duration kConfirm = Duration::Seconds(30);  // a long prompt may be tokenized for long before the engine has it
constexpr Duration kAskAgain = Duration::Millis(200);
constexpr Duration kAskAgainMost =
    Duration::Seconds(10);  // a server that is not understood is not to be kept busy by snapshots
constexpr Duration kAgreed = Duration::Seconds(10);
constexpr double kFrontMemory = 32;  // requests
constexpr double kFrontQuantile =
    0.25;  // of the way in: the rest of it is the wait for the step under way, which the mirror knows
constexpr int64_t kFrontMost = 1'000'000'000;

std::unique_ptr<LengthEstimator> NewLengths() {
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kHint);
  FT_CHECK(lengths.ok());
  return std::move(lengths).value();
}

EngineConfig Unknown() {
  EngineConfig c;
  c.async_scheduling = false;
  c.stop_at_eos = true;
  return c;
}

}  // namespace

LiveMirror::LiveMirror(Options options)
    : options_(options), sequencer_(SequencerOptions()), lengths_(NewLengths()), limits_(Unknown()), ask_again_(kAskAgain) {}

std::unique_ptr<SimulatorCore> LiveMirror::NewSimulator() const {
  SimulatorCore::Options o;
  o.profile.instance = options_.instance;
  o.profile.limits = limits_;
  o.profile.step_time = law_.model();
  o.profile.slo = options_.slo;
  o.profile.calibrate = true;
  o.profile.expected_arrivals = true;
  o.level = SyncLevel::kFull;
  o.confirm_timeout = kConfirm;
  o.liveness = true;
  o.stale_after = options_.stale_after;
  o.dead_after = options_.stale_after * 2;
  auto lengths = NewLengths();
  auto predictor = MakePredictor(PredictorKind::kTimeline, o.profile, lengths.get());
  FT_CHECK(predictor.ok());
  return std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths));
}

void LiveMirror::OnMessage(StreamMessage message, Instant now, Effects& effects) {
  now_ = now;
  effects_ = &effects;
  heard_ = now;
  open_ = true;
  if (message.epoch >= sequencer_.epoch()) clock_.OnReceived(message.sent, now);
  const Sequencer<StreamMessage>::Header header{message.epoch, message.seq, std::holds_alternative<Snapshot>(message.body)};
  sequencer_.OnMessage(header, message, now, *this);
  if (rebuild_due_) Rebuild();
  NoteLevel();
}

void LiveMirror::OnTimer(Instant now, Effects& effects) {
  now_ = now;
  effects_ = &effects;
  if (!open_) return;
  sequencer_.OnTimeout(now, *this);
  if (simulator_ != nullptr) simulator_->OnTimer(now, *this);
  NoteLevel();
}

void LiveMirror::EpochChanged(Epoch) {
  simulator_.reset();
  known_ = false;
  clock_ = ClockMap();
  next_applied_ = 0;
  shadow_.Lose("the server was started anew");
  std::erase_if(ours_, [](const auto& o) { return o.second.ended_here; });
}

void LiveMirror::RequestResync(Epoch, uint64_t from_seq) {
  shadow_.Lose("messages are missing");
  Ask(from_seq);
}

void LiveMirror::Ask(uint64_t from_seq) {
  ++counters_.snapshots_asked;
  asked_ = now_;
  effects_->RequestSnapshot(options_.instance, sequencer_.epoch(), from_seq);
}

// How long the state was not exact, and the way back to it.
void LiveMirror::NoteLevel() {
  const bool exact = shadow_.level() == StateLevel::kExact;
  if (exact && !exact_before_) {
    exact_since_ = now_;
    if (lost_at_ != Instant()) {
      const double seconds = (now_ - lost_at_).seconds();
      ++counters_.repairs;
      counters_.repair_s += seconds;
      counters_.longest_repair_s = std::max(counters_.longest_repair_s, seconds);
    }
  }
  if (!exact && exact_before_) {
    lost_at_ = now_;
    if (now_ - exact_since_ > kAgreed) ask_again_ = kAskAgain;
  }
  exact_before_ = exact;
  const bool wants = shadow_.wants_snapshot() || (rebuild_due_ && !exact);
  if (!wants || sequencer_.gap_open() || now_ - asked_ < ask_again_) return;
  ask_again_ = std::min(kAskAgainMost, ask_again_ * 2);
  Ask(sequencer_.next_seq());
}

void LiveMirror::Apply(StreamMessage& message) {
  if (message.seq != next_applied_) shadow_.Lose("messages are missing");
  next_applied_ = message.seq + 1;
  if (const auto* hello = std::get_if<Hello>(&message.body)) return OnHello(*hello);
  shadow_.Apply(message.body);
  if (simulator_ == nullptr) return;
  known_ = true;
  if (const auto* arrived = std::get_if<Arrived>(&message.body)) {
    OnArrived(*arrived);
  } else if (const auto* step = std::get_if<BatchTrace>(&message.body)) {
    OnStep(*step);
  } else if (const auto* aborted = std::get_if<Aborted>(&message.body)) {
    EndThere(aborted->request, 0);
  } else if (const auto* snapshot = std::get_if<Snapshot>(&message.body)) {
    ForgetEnded(*snapshot);
  } else if (const auto* hashed = std::get_if<BlocksHashed>(&message.body)) {
    if (const auto ours = ours_.find(hashed->request.value()); ours != ours_.end()) ours->second.behind = hashed->block_hashes;
    return;  // nothing that predicts reads it
  }
  Forward(message);
}

void LiveMirror::Forward(StreamMessage& message) {
  StreamMessage own{options_.instance, SourceId(0), Epoch(epoch_), forwarded_++, std::move(message.body), now_};
  if (auto* snapshot = std::get_if<Snapshot>(&own.body)) snapshot->exact.reset();  // who predicts needs no blocks
  MapTimes(own.body, [this](Instant t) { return Here(t); });
  simulator_->OnStream(own, now_, *this);
}

void LiveMirror::OnHello(const Hello& hello) {
  shadow_.OnHello(hello);
  version_ = hello.version;
  if (shadow_.config() != nullptr) limits_ = *shadow_.config();
  rebuild_due_ = false;
  simulator_ = NewSimulator();
  ++epoch_;
  forwarded_ = 0;
  for (const auto& [id, ours] : ours_) Reserve(ours.reservation);
}

void LiveMirror::Reserve(const Reservation& reservation) {
  EnqueueOrder order;
  order.instance = options_.instance;
  order.reservation = reservation;
  simulator_->OnEnqueue(order, now_);
}

std::vector<PromptSegment> LiveMirror::SegmentsOf(std::span<const BlockHash> blocks) const {
  std::vector<PromptSegment> segments;
  segments.reserve(blocks.size());
  for (const BlockHash h : blocks) segments.push_back({h.value(), TokenCount(limits_.block_size)});
  return segments;
}

void LiveMirror::OnArrived(const Arrived& a) {
  Reservation r;
  const auto at = ours_.find(a.request.value());
  if (at == ours_.end()) {
    ++counters_.foreign;
    r.request = a.request;
    r.arrival = Here(a.at);
    r.slo = options_.slo;
    r.length.request = a.request;
  } else {
    r = at->second.reservation;
    simulator_->OnCancel(a.request, now_);  // what it was taken for; now it is known
    binding_.OnArrived(at->second.text, a.prompt_tokens, limits_.block_size, a.block_hashes);
    at->second.prompt = a.prompt_tokens;
    if (at->second.sent != Instant()) {
      // The quantile by small steps, which are a share of it.
      const auto seen = static_cast<double>(std::clamp<int64_t>((Here(a.at) - at->second.sent).nanos(), 0, kFrontMost));
      if (front_in_seen_++ == 0) front_in_ns_ = seen;
      const double stride = std::max(1e5, front_in_ns_ / kFrontMemory * 2);
      front_in_ns_ = std::max(0.0, front_in_ns_ + stride * ((seen >= front_in_ns_ ? 1 : 0) - (1 - kFrontQuantile)));
    }
  }
  r.priority = a.priority;
  r.prompt_tokens = std::max<int64_t>(1, a.prompt_tokens);
  if (a.max_tokens > 0) r.length.max_tokens = TokenCount(a.max_tokens);
  if (at == ours_.end()) r.expected_output = lengths_->Total(r.length, TokenCount(0)).value();
  r.segments = SegmentsOf(a.block_hashes);
  Reserve(r);
  if (at != ours_.end()) at->second.reservation = std::move(r);
}

void LiveMirror::OnStep(const BatchTrace& step) {
  if (law_.Observe(step)) rebuild_due_ = true;
  for (const BatchTrace::Admission& a : step.admitted) {
    const auto ours = ours_.find(a.request.value());
    if (ours == ours_.end() || a.resumed || ours->second.cached < 0) continue;
    ++counters_.cached_predicted;
    counters_.cached_exact += ours->second.cached == a.cached;
  }
  for (const BatchTrace::Chunk& c : step.chunks) {
    const auto ours = ours_.find(c.request.value());
    if (ours == ours_.end() || !c.samples || ours->second.first_result != Instant()) continue;
    ours->second.first_result = Here(step.end());
    LearnFront(ours->second);
  }
  for (const BatchTrace::Finish& f : step.finished) EndThere(f.request, f.output_tokens);
}

// A token's way back, of a request whose first token has been seen at both ends.
void LiveMirror::LearnFront(Ours& ours) {
  if (ours.first_result == Instant() || ours.first_here == Instant()) return;
  const auto seen = static_cast<double>(std::clamp<int64_t>((ours.first_here - ours.first_result).nanos(), 0, kFrontMost));
  ++front_out_seen_;
  // One stall is no habit.
  const double rate = 1 / std::min(static_cast<double>(front_out_seen_), kFrontMemory);
  front_out_ns_ += rate * (std::min(seen, front_out_seen_ == 1 ? seen : 4 * front_out_ns_ + 1e6) - front_out_ns_);
}

void LiveMirror::EndThere(RequestId request, int64_t output) {
  if (output > 0) lengths_->Learn(0, TokenCount(output));
  const auto at = ours_.find(request.value());
  if (at == ours_.end()) return;
  Ours& ours = at->second;
  if (output > 0) binding_.OnEnded(ours.text, ours.prompt + output, ours.behind);
  ours.ended_there = true;
  if (ours.ended_here) ours_.erase(at);
}

void LiveMirror::ForgetEnded(const Snapshot& snapshot) {
  std::unordered_map<uint64_t, bool> there;
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list) there[r.request.value()] = true;
  std::erase_if(ours_, [&](const auto& o) { return o.second.ended_here && !there.contains(o.first); });
}

// Another law: the simulator begins anew with it, from what the shadow holds.
void LiveMirror::Rebuild() {
  if (shadow_.core() == nullptr || simulator_ == nullptr) return;
  rebuild_due_ = false;
  simulator_ = NewSimulator();
  ++epoch_;
  forwarded_ = 0;
  for (const auto& [id, ours] : ours_)
    if (!ours.ended_there && !ours.ended_here) Reserve(ours.reservation);
  Snapshot snapshot = shadow_.core()->TakeSnapshot(false);
  StreamMessage own{options_.instance, SourceId(0), Epoch(epoch_), forwarded_++, {}, now_};
  snapshot.as_of = now_;
  own.body = std::move(snapshot);
  simulator_->OnStream(own, now_, *this);
}

Prediction LiveMirror::Predict(const PredictQuery& query, Instant now) {
  now_ = now;
  RequestMeta request = *query.request;
  const int64_t prompt = request.prompt_tokens.value();
  const auto blocks = binding_.Expected(request.segments, prompt, limits_.block_size);
  const int64_t most = std::max<int64_t>(0, prompt - 1) / limits_.block_size;
  const int64_t there = shadow_.CachedBlocks(blocks).value_or(static_cast<int64_t>(blocks.size()));
  const auto cached = static_cast<size_t>(std::min(there, most));
  request.segments = SegmentsOf(blocks.first(cached));
  asked_about_ = request.id;
  asked_cached_ = static_cast<int64_t>(cached) * limits_.block_size;
  PredictQuery at_engine = query;
  at_engine.request = &request;
  // The engine has it when it has come through the front end.
  Prediction p = simulator_->Predict(at_engine, now + front_in());
  const Duration front = front_in() + front_out();
  for (Duration* d : {&p.ttft, &p.ttft_p90, &p.e2e, &p.e2e_p90, &p.e2e_alone}) *d = *d + front;
  p.age = std::max(Duration(), p.age - front_in());
  p.level = shadow_.level();
  return p;
}

void LiveMirror::OnEnqueue(const EnqueueOrder& order, Instant now) {
  now_ = now;
  Ours ours;
  ours.reservation = order.reservation;
  ours.text = std::move(ours.reservation.segments);
  const bool asked = asked_about_ == order.reservation.request;
  ours.cached = asked ? asked_cached_ : -1;
  const auto blocks = binding_.Expected(ours.text, ours.reservation.prompt_tokens, limits_.block_size);
  const auto known = static_cast<size_t>(std::max<int64_t>(0, asked ? asked_cached_ / limits_.block_size : 0));
  ours.reservation.segments = SegmentsOf(blocks.first(std::min(blocks.size(), known)));
  if (simulator_ != nullptr) Reserve(ours.reservation);
  ours_.insert_or_assign(order.reservation.request.value(), std::move(ours));
}

void LiveMirror::OnSent(RequestId request, Instant now) {
  if (const auto at = ours_.find(request.value()); at != ours_.end()) at->second.sent = now;
}

void LiveMirror::OnFirstToken(RequestId request, Instant now) {
  const auto at = ours_.find(request.value());
  if (at == ours_.end() || at->second.first_here != Instant()) return;
  at->second.first_here = now;
  LearnFront(at->second);
}

void LiveMirror::OnEnded(RequestId request, TokenCount output, Instant now) {
  now_ = now;
  if (simulator_ != nullptr) simulator_->OnEnded(request, output, now);
  const auto at = ours_.find(request.value());
  if (at == ours_.end()) return;
  at->second.ended_here = true;
  if (at->second.ended_there || simulator_ == nullptr) ours_.erase(at);
}

// Taken back: the engine tells of its end when it has heard of it.
void LiveMirror::OnGone(RequestId request, Instant now) {
  now_ = now;
  const auto at = ours_.find(request.value());
  if (at == ours_.end()) return;
  if (simulator_ != nullptr) simulator_->OnCancel(request, now);
  at->second.ended_here = true;
  if (at->second.ended_there || at->second.sent == Instant() || simulator_ == nullptr) ours_.erase(at);
}

}  // namespace foretoken
