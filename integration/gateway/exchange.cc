#include "integration/gateway/exchange.h"
#include "integration/log/exemplars.h"
#include "integration/log/log.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>

namespace foretoken {
namespace {

// A line of chunked coding: the size in hex.
std::string_view ChunkLine(size_t size, std::array<char, 24>& buffer) {
  char* end = std::to_chars(buffer.data(), buffer.data() + 18, size, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  return {buffer.data(), static_cast<size_t>(end - buffer.data())};
}

// Header lines but the one that names the request: this engine is told our number instead, by which its stream speaks of it.
void AppendWithoutRequestId(std::string_view lines, std::string& out) {
  constexpr std::string_view kName = "x-request-id:";
  while (!lines.empty()) {
    const std::string_view line =
        lines.substr(0, lines.find('\n') == std::string_view::npos ? lines.size() : lines.find('\n') + 1);
    lines.remove_prefix(line.size());
    const bool names = line.size() >= kName.size() && std::equal(kName.begin(), kName.end(), line.begin(), [](char a, char b) {
                         return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
                       });
    if (!names) out += line;
  }
}

GatewayError Unavailable(std::string message, std::string code) {
  return {503, std::move(message), "server_error", "", std::move(code), 1};
}

}  // namespace

void Exchange::Start(const RequestHead& head, std::string body, uint64_t reserved, Endpoint endpoint) {
  reserved_bytes_ = reserved;
  started_ = gateway_.Now();
  phase_ = Phase::kQueued;
  head_ = &head;
  endpoint_ = endpoint;
  body_ = std::move(body);
  ++gateway_.counters().requests;
  OpenAiBody parsed;
  if (auto error = ReadOpenAiBody(body_, endpoint, parsed))
    return Refuse({400, error->message, "invalid_request_error", error->param, "", {}});
  if (!head.complaint.empty())
    return Refuse({400, head.complaint, "invalid_request_error", head.complaint.substr(0, head.complaint.find(':')), "", {}});
  const Gateway::ModelLookup model = gateway_.FindModel(parsed.model);
  if (!model.known)
    return Refuse({404,
                   "The model `" + parsed.model + "` does not exist here.",
                   "invalid_request_error",
                   "model",
                   "model_not_found",
                   {}});
  model_ = std::move(parsed.model);
  stream_ = parsed.stream;
  sequences_ = parsed.choices * parsed.prompts;
  text_class_ = parsed.prompt.text_class();
  prompt_bytes_ = parsed.prompt.bytes();
  prompt_parts_ = parsed.prompt.parts();

  meta_.id = gateway_.NextRequestId();
  meta_.model = model.id;
  meta_.arrival = started_;
  meta_.prompt_tokens = gateway_.tokens().Tokens(model.id, parsed.prompt).tokens;
  meta_.max_tokens.reset();
  if (parsed.max_tokens) meta_.max_tokens = TokenCount(std::max<int64_t>(1, *parsed.max_tokens));
  meta_.output_hint.reset();
  if (head.length_hint) meta_.output_hint = TokenCount(*head.length_hint);
  meta_.priority = head.priority.value_or(parsed.priority.value_or(0));
  meta_.length_class = model.id.value();
  meta_.session = head.session;
  meta_.slo.reset();
  if (head.slo_ttft_ms || head.slo_tpot_ms) {
    Slo slo{gateway_.config().slo_ttft, gateway_.config().slo_tpot};
    if (head.slo_ttft_ms) slo.ttft = Duration::FromSeconds(*head.slo_ttft_ms * 1e-3);
    if (head.slo_tpot_ms) slo.tpot = Duration::FromSeconds(*head.slo_tpot_ms * 1e-3);
    meta_.slo = slo;
  }
  gateway_.tokens().Segments(model.id, parsed.prompt, meta_.segments);
  reached_ = crashed_ = 0;
  gateway_.retry_budget().OnRequest(started_);
  Admit();
}

void Exchange::Admit() {
  waiter_.reset();
  if (gateway_.config().max_concurrent_requests > 0)
    waiter_ = std::make_shared<Gateway::Waiter>([this] {
      has_place_ = true;
      Decide();
    });
  switch (gateway_.TakePlace(waiter_)) {
    case Gateway::Place::kNow: has_place_ = true; return Decide();
    case Gateway::Place::kLater: return;
    case Gateway::Place::kNone:
      ++gateway_.counters().shed;
      return Refuse({429,
                     "Too many requests are waiting here (queue_size " + std::to_string(gateway_.config().queue_size) + ").",
                     "rate_limit_error", "", "queue_full", 1});
  }
}

void Exchange::Decide() {
  const Instant now = gateway_.Now();
  gateway_.RefreshCandidates(now);
  choice_ = gateway_.routing().Decide(meta_, now);
  const Duration took = gateway_.Now() - now;
  gateway_.counters().decision.Add(took);
  if (RequestJournal* journal = gateway_.routing().journal()) journal->OnTook(took, now);
  if (!choice_.placed) return Reject(choice_.reason);
  stale_retried_ = false;
  engine_ = &gateway_.engine(choice_.instance);
  Attempt(false);
}

void Exchange::Attempt(bool fresh) {
  sent_at_ = gateway_.Now();
  sent_ = false;
  have_head_ = false;
  response_ = ResponseHead();
  decoder_ = ChunkedDecoder();
  held_.clear();
  tail_.clear();
  usage_window_.clear();
  usage_.reset();
  chunks_ = events_ = 0;
  if (!is_linked()) engine_->uses.push_back(*this);
  if (engine_->any_model) engine_->model_asked = model_;
  if (gateway_.MustVerify(*engine_, fresh || engine_->idle() == 0)) {
    phase_ = Phase::kVerifying;
    return;
  }
  Dial(fresh);
}

void Exchange::OnVerified(bool ok) {
  const auto& models = engine_->models;
  ok = ok && (engine_->any_model || std::find(models.begin(), models.end(), model_) != models.end());
  // It had the request on a connection that broke: it may have died of it.
  if (!ok) return Fail(stale_retried_ ? Failure::kCrashed : Failure::kReplaced);
  sent_at_ = gateway_.Now();
  Dial(false);
}

void Exchange::Dial(bool fresh) {
  engine_->health.OnSent();
  link_ = engine_->Take(fresh, sent_at_);
  if (link_->open()) {
    link_->Attach(*this);
    return SendRequest();
  }
  phase_ = Phase::kConnecting;
  link_->Connect(engine_->endpoints.front(), *this);
}

void Exchange::OnLinkOpen() { SendRequest(); }

void Exchange::SendRequest() {
  phase_ = Phase::kWaiting;
  wire_head_.clear();
  wire_head_ += "POST ";
  wire_head_ += engine_->url.prefix;
  wire_head_ += head_->target;
  wire_head_ += " HTTP/1.1\r\nHost: ";
  wire_head_ += engine_->url.authority();
  wire_head_ += "\r\n";
  if (gateway_.TellsNumber(engine_->id)) {
    AppendWithoutRequestId(head_->forwarded, wire_head_);
    wire_head_ += "X-Request-Id: ft-" + std::to_string(meta_.id.value()) + "\r\n";
  } else {
    wire_head_ += head_->forwarded;
    if (head_->made_request_id) {
      wire_head_ += "X-Request-Id: ";
      wire_head_ += head_->request_id;
      wire_head_ += "\r\n";
    }
  }
  if (engine_->url.rank) wire_head_ += "X-data-parallel-rank: " + std::to_string(*engine_->url.rank) + "\r\n";
  std::array<char, 24> digits;
  const std::to_chars_result end = std::to_chars(digits.data(), digits.data() + digits.size(), body_.size());
  wire_head_ += "Content-Length: ";
  wire_head_.append(digits.data(), static_cast<size_t>(end.ptr - digits.data()));
  wire_head_ += "\r\n\r\n";
  if (!stale_retried_) {
    ++reached_;
    ++engine_->counters.requests;
    gateway_.routing().OnSent(meta_, engine_->id, stream_, sent_at_);
  }
  sent_ = true;
  link_->Send(wire_head_, body_);
}

void Exchange::OnLinkBytes() {
  last_at_ = gateway_.Now();
  engine_->last_byte = last_at_;
  if (!have_head_ && !ReadHead()) return;
  ReadBody();
}

// True: a head has been read and its body is to be relayed.
bool Exchange::ReadHead() {
  for (;;) {
    const std::string_view bytes = link_->pending();
    size_t from = 0, consumed = 0;
    if (FindHeadEnd(bytes, from) == 0) {
      if (bytes.size() > 65536) Fail(Failure::kCrashed);
      return false;
    }
    response_ = ResponseHead();
    std::string error;
    if (ParseResponseHead(bytes, response_, consumed, error) != HeadResult::kDone) {
      Fail(Failure::kCrashed);
      return false;
    }
    link_->Consume(consumed);
    if (response_.status >= 200) break;  // 100 Continue and its like are between neighbours
  }
  have_head_ = true;
  if (response_.status == 404 && !engine_->any_model) {
    // It may be another engine than it was: then it is none of the client's business.
    gateway_.OnUnknownModel(*engine_);
    if (MayRetry(Failure::kReplaced) && gateway_.OtherServes(*engine_, model_)) {
      Fail(Failure::kReplaced);
      return false;
    }
  }
  scans_ = response_.status < 300 && response_.event_stream && !response_.encoded;
  left_ = response_.content_length.value_or(0);
  if (response_.status >= 500) {
    ++engine_->counters.failed;
    if (MayRetry(Failure::kServerError)) {
      Fail(Failure::kServerError);
      return false;
    }
    gateway_.OnTrouble(*engine_, EngineTrouble::kErrors, last_at_);
  }
  phase_ = Phase::kAnswering;
  return true;
}

void Exchange::ReadBody() {
  const bool bodiless = response_.status == 204 || response_.status == 304;
  while (phase_ == Phase::kAnswering) {
    const std::string_view bytes = link_->pending();
    const bool sized = response_.content_length.has_value();
    const bool empty = bodiless || (sized && left_ == 0);
    if (bytes.empty() && !empty) return;
    size_t payload = bytes.size(), consumed = bytes.size();
    bool end = empty;
    if (empty) {
      payload = consumed = 0;
    } else if (response_.chunked) {
      const ChunkedDecoder::Step step = decoder_.Decode(link_->pending_data(), bytes.size());
      if (step.state == ChunkedDecoder::State::kBad) return Fail(Failure::kCrashed);
      payload = step.payload;
      consumed = step.consumed;
      end = step.state == ChunkedDecoder::State::kDone;
    } else if (sized) {
      payload = consumed = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
      left_ -= payload;
      end = left_ == 0;
    }
    const std::shared_ptr<EngineLink> hold = link_;  // the payload lies in it
    OnPayload(hold->pending_data(), payload, end);
    if (link_ != hold) return;  // the client has gone
    link_->Consume(consumed);
    if (end) return Complete();
  }
}

void Exchange::OnPayload(char* data, size_t size, bool end) {
  std::string_view payload(data, size);
  if (scans_) {
    if (!tail_.empty()) {
      tail_.append(payload);
      payload = tail_;
    }
    size_t whole = end || payload.size() > kMostTail ? payload.size() : WholeEvents(payload);
    const std::string_view rest = payload.substr(whole);
    OnEvents(payload.substr(0, whole), end);
    if (!active()) return;
    if (!tail_.empty()) {
      tail_.erase(0, whole);
    } else if (!rest.empty()) {
      tail_.assign(rest);
    }
    return;
  }
  if (!began_ && !end && held_.size() + size <= kMostHeld) return held_.append(payload), void();
  if (response_.status < 300 && !response_.encoded) {
    if (!began_ && !held_.empty()) usage_window_ = held_;
    usage_window_.append(payload);
    if (auto usage = FindUsage(usage_window_)) usage_ = usage;
    if (usage_window_.size() > 512) usage_window_.erase(0, usage_window_.size() - 512);
  }
  Forward(payload, end);
}

void Exchange::OnEvents(std::string_view events, bool end) {
  const EventScan scan = ScanEvents(events);
  if (scan.usage) usage_ = scan.usage;
  events_ += scan.events;
  if (scan.content_events > 0) {
    const bool first = chunks_ == 0;
    if (first) {
      first_at_ = last_at_;
      gateway_.counters().ttft.Add(last_at_ - started_);
      engine_->counters.ttft.Add(last_at_ - sent_at_);
    } else {
      gateway_.counters().inter_token.Add(last_at_ - output_at_);
      engine_->counters.inter_token.Add(last_at_ - output_at_);
    }
    output_at_ = last_at_;
    chunks_ += scan.content_events;
    gateway_.counters().output_chunks += static_cast<uint64_t>(scan.content_events);
    gateway_.routing().OnOutput(meta_.id, engine_->id, scan.content_events, first, last_at_);
  }
  // Unseen by the client so far: the role, comments, whatever an engine sends before its first output.
  const bool nothing_yet = !began_ && chunks_ == 0 && !scan.done && !scan.error && !end;
  if (nothing_yet && events_ < 3 && held_.size() + events.size() < kMostHeld) {
    held_.append(events);
    return;
  }
  if (!events.empty() || end) Forward(events, end);
}

std::string Exchange::AnswerHead() const {
  std::string out;
  out.reserve(256 + response_.forwarded.size());
  out += "HTTP/1.1 ";
  out += std::to_string(response_.status);
  out += ' ';
  out += response_.reason;
  out += "\r\n";
  out += response_.forwarded;
  if (!response_.has_request_id) {
    out += "X-Request-Id: ";
    out += head_->request_id;
    out += "\r\n";
  }
  if (gateway_.config().decision_headers) {
    out += "x-foretoken-instance: " + engine_->url.name() + "\r\n";
    if (choice_.prediction) {
      const auto ms = [](Duration d) { return std::to_string(static_cast<double>(d.nanos()) * 1e-6); };
      out += "x-foretoken-predicted-ttft-ms: " + ms(choice_.prediction->ttft) + "\r\n";
      out += "x-foretoken-predicted-e2e-ms: " + ms(choice_.prediction->e2e) + "\r\n";
    }
  }
  if (response_.content_length) {
    out += "Content-Length: " + std::to_string(*response_.content_length) + "\r\n";
  } else if (Chunked()) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  if (!head_->keep_alive || (!response_.content_length && !Chunked())) out += "Connection: close\r\n";
  out += "\r\n";
  return out;
}

void Exchange::Forward(std::string_view payload, bool end) {
  std::array<std::string_view, 5> pieces;
  size_t n = 0;
  std::string head;
  if (!began_) {
    began_ = true;
    head = AnswerHead();
    pieces[n++] = head;
    if (!held_.empty()) {
      held_.append(payload);
      payload = held_;
    }
    std::string().swap(body_);  // no other engine will need it
    gateway_.ReleaseBytes(std::exchange(reserved_bytes_, 0));
  }
  std::array<char, 24> line;
  const bool chunked = Chunked();
  if (!payload.empty()) {
    if (chunked) pieces[n++] = ChunkLine(payload.size(), line);
    pieces[n++] = payload;
    if (chunked) pieces[n++] = "\r\n";
  }
  if (end && chunked) pieces[n++] = "0\r\n\r\n";
  if (n == 0) return;
  const bool all = sink_.Send({pieces.data(), n});
  if (!active()) return;
  if (!held_.empty()) std::string().swap(held_);
  if (!all && link_ != nullptr) link_->Pause();
}

void Exchange::OnSinkDrained() {
  if (link_ != nullptr) link_->Resume();
}

// Names some of the requests that were slow or badly predicted; of what they hold, nothing.
void Exchange::TellExample(Duration e2e) const {
  Log* log = gateway_.config().log.get();
  if (log == nullptr || chunks_ == 0) return;
  const Duration ttft = first_at_ - started_;
  if (ttft > gateway_.config().slo_ttft)
    log->Example(LogLevel::kInfo, "slow_request", "a request's first token came after its target",
                 {{"request_id", head_->request_id},
                  {"engine", engine_->url.name()},
                  {"ttft_s", ttft.seconds()},
                  {"target_s", gateway_.config().slo_ttft.seconds()},
                  {"prompt_tokens", meta_.prompt_tokens.value()}});
  if (choice_.prediction && reached_ == 1 && PredictedBadly(choice_.prediction->e2e, e2e))
    log->Example(LogLevel::kInfo, "badly_predicted", "a request took otherwise than predicted",
                 {{"request_id", head_->request_id},
                  {"engine", engine_->url.name()},
                  {"predicted_e2e_s", choice_.prediction->e2e.seconds()},
                  {"e2e_s", e2e.seconds()},
                  {"state_age_s", choice_.prediction->age.seconds()}});
}

void Exchange::Judge(Instant now) {
  const Duration e2e = now - started_;
  gateway_.counters().e2e.Add(e2e);
  TellExample(e2e);
  if (!choice_.prediction || reached_ != 1 || chunks_ == 0 || first_at_ <= started_) return;
  const double ttft_error = choice_.prediction->ttft.seconds() / (first_at_ - started_).seconds() - 1;
  const double e2e_error = choice_.prediction->e2e.seconds() / e2e.seconds() - 1;
  GatewayCounters& c = gateway_.counters();
  ++c.judged;
  c.ttft_ape += std::abs(ttft_error);
  c.ttft_bias += ttft_error;
  c.e2e_ape += std::abs(e2e_error);
  c.e2e_bias += e2e_error;
}

void Exchange::Complete() {
  const Instant now = last_at_;
  const bool good = response_.status < 300;
  Routing& routing = gateway_.routing();
  if (good) {
    ++gateway_.counters().finished;
    ++engine_->counters.finished;
    engine_->counters.e2e.Add(now - sent_at_);
    if (usage_) {
      gateway_.counters().output_tokens += static_cast<uint64_t>(usage_->completion_tokens);
      engine_->counters.output_tokens += static_cast<uint64_t>(usage_->completion_tokens);
      if (sequences_ == 1)
        gateway_.tokens().Learn(meta_.model, text_class_, prompt_bytes_, prompt_parts_, usage_->prompt_tokens);
    }
    const double per_chunk = routing.mirror(engine_->id).tokens_per_chunk();
    const int64_t output = usage_ ? usage_->completion_tokens : std::llround(static_cast<double>(chunks_) * per_chunk);
    Judge(now);
    routing.OnFinished(meta_.id, engine_->id, TokenCount(std::max<int64_t>(1, output / sequences_)), usage_.has_value(), now);
    gateway_.OnGoodAnswer(*engine_);
  } else {
    if (response_.status < 500) {
      ++engine_->counters.answers_4xx;
      engine_->health.OnTrialVoid();
    }
    routing.OnCancelled(meta_.id, engine_->id, now);
  }
  const bool framed = response_.content_length || response_.chunked || response_.status == 204 || response_.status == 304;
  if (framed && response_.keep_alive && link_->pending().empty() && link_->sent_all()) {
    engine_->Give(std::exchange(link_, nullptr), now);
  }
  const bool keep = head_->keep_alive && (response_.content_length || Chunked());
  End();
  sink_.Finish(keep);
}

void Exchange::OnLinkClosed(const EngineLink::Code&) {
  last_at_ = gateway_.Now();
  const std::shared_ptr<EngineLink> closed = std::exchange(link_, nullptr);
  if (phase_ == Phase::kConnecting) return Fail(stale_retried_ ? Failure::kCrashed : Failure::kRefused);
  if (have_head_ && !response_.chunked && !response_.content_length) {  // its end is the end of the connection
    OnPayload(nullptr, 0, true);
    if (active()) Complete();
    return;
  }
  if (closed->reused() && !have_head_ && closed->pending().empty() && !stale_retried_) {
    ++engine_->counters.stale_connections;
    engine_->Suspect();
    stale_retried_ = true;
    return Attempt(true);
  }
  Fail(Failure::kCrashed);
}

// A request during which an engine crashed is retried at most once and never reaches a third engine.
bool Exchange::MayRetry(Failure failure) const {
  if (began_) return false;
  if (failure == Failure::kServerError || failure == Failure::kReplaced) return crashed_ == 0 && reached_ < 3;
  if (failure == Failure::kRefused) return crashed_ == 0 || reached_ < 2;
  return crashed_ == 0 && reached_ < 2;
}

void Exchange::Fail(Failure failure, bool paid) {
  DropLink();
  const Instant now = gateway_.Now();
  switch (failure) {
    case Failure::kRefused: gateway_.OnTrouble(*engine_, EngineTrouble::kUnreachable, now); break;
    case Failure::kCrashed: gateway_.OnTrouble(*engine_, EngineTrouble::kCrashed, now); break;
    case Failure::kServerError: gateway_.OnTrouble(*engine_, EngineTrouble::kErrors, now); break;
    case Failure::kHung: break;      // that is how it was found
    case Failure::kReplaced: break;  // it is being asked
  }
  if (failure != Failure::kServerError && failure != Failure::kReplaced) ++engine_->counters.failed;
  if (began_) return CutStream();
  bool may = MayRetry(failure);
  if (failure == Failure::kCrashed || failure == Failure::kHung) ++crashed_;
  // What an engine that is gone leaves is no more work than before: it moves. The budget is for what the engine may still be at.
  const bool adds_load = failure == Failure::kServerError || failure == Failure::kHung;
  if (may && adds_load && !paid && !gateway_.retry_budget().TryRetry(now)) {
    ++gateway_.counters().retries_denied;
    may = false;
  }
  unlink();
  if (!may) {
    gateway_.routing().OnCancelled(meta_.id, engine_->id, now);
    return GiveUp(failure);
  }
  gateway_.RefreshCandidates(now);
  const bool died = failure == Failure::kCrashed || failure == Failure::kHung;
  choice_ = gateway_.routing().DecideAgain(meta_, died ? OutcomeReason::kEngineRestarted : OutcomeReason::kEngineDown, now);
  if (!choice_.placed) return GiveUp(failure);
  ++gateway_.counters().retried;
  stale_retried_ = false;
  engine_ = &gateway_.engine(choice_.instance);
  Attempt(false);
}

void Exchange::GiveUp(Failure failure) {
  ++gateway_.counters().failed;
  const std::string name = engine_->url.name();
  switch (failure) {
    case Failure::kRefused:
    case Failure::kReplaced:
      return Refuse(Unavailable("No engine that serves `" + model_ + "` can be reached.", "no_live_engine"));
    case Failure::kCrashed:
      return Refuse({502, "The engine " + name + " ended before it had answered.", "server_error", "", "engine_died", {}});
    case Failure::kServerError:
      return Refuse(Unavailable(
          "The engine " + name + " answered " + std::to_string(response_.status) + " and no other could take the request.",
          "engine_error"));
    case Failure::kHung: return Refuse({504, "The engine " + name + " does not answer.", "server_error", "", "engine_hung", 1});
  }
}

void Exchange::CutStream() {
  ++gateway_.counters().failed;
  ++gateway_.counters().cut_streams;
  DropLink();
  gateway_.routing().OnCancelled(meta_.id, engine_->id, gateway_.Now());
  if (scans_) {
    const std::string event = ErrorEvent({502,
                                          "The engine " + engine_->url.name() + " ended in the middle of this answer.",
                                          "server_error",
                                          "",
                                          "engine_died",
                                          {}});
    std::array<char, 24> line;
    std::array<std::string_view, 3> pieces = {Chunked() ? ChunkLine(event.size(), line) : std::string_view(), event,
                                              Chunked() ? "\r\n" : ""};
    sink_.Send(pieces);  // not ended as chunked coding ends: who ignores the event must not take it for complete
  }
  if (!active()) return;
  End();
  sink_.Finish(false);
}

void Exchange::Reject(OutcomeReason reason) {
  GatewayCounters& c = gateway_.counters();
  switch (reason) {
    case OutcomeReason::kShed:
      ++c.shed;
      return Refuse({429, "Every engine would miss the latency targets of this request.", "rate_limit_error", "",
                     "predicted_slo_miss", 1});
    case OutcomeReason::kTooLong:
    case OutcomeReason::kNeverFits:
      return Refuse({400,
                     "The prompt is longer than any engine of this model takes.",
                     "invalid_request_error",
                     endpoint_ == Endpoint::kCompletions ? "prompt" : "messages",
                     "context_length_exceeded",
                     {}});
    default: ++c.failed; return Refuse(Unavailable("No engine that serves `" + model_ + "` is alive.", "no_live_engine"));
  }
}

void Exchange::Refuse(const GatewayError& error) {
  if (error.status < 500) ++gateway_.counters().refused;
  End();
  sink_.SendError(error);
}

void Exchange::DropLink() {
  if (link_ != nullptr) std::exchange(link_, nullptr)->Close();
}

// Nothing of the request is left behind.
void Exchange::End() {
  phase_ = Phase::kIdle;
  DropLink();
  unlink();
  engine_ = nullptr;
  began_ = have_head_ = scans_ = false;
  std::string().swap(body_);
  held_.clear();
  tail_.clear();
  meta_.segments.clear();
  gateway_.ReleaseBytes(std::exchange(reserved_bytes_, 0));
  waiter_.reset();
  if (std::exchange(has_place_, false)) gateway_.GivePlace();
}

void Exchange::Cancel() {
  if (!active()) return;
  ++gateway_.counters().cancelled;
  if (engine_ != nullptr) {
    ++engine_->counters.cancelled;
    engine_->health.OnTrialVoid();
    gateway_.routing().OnCancelled(meta_.id, engine_->id, gateway_.Now());
  }
  End();
}

// It stays where it is while it may not go elsewhere: the engine may wake up.
void Exchange::OnEngineHung() {
  const Instant now = gateway_.Now();
  if (phase_ != Phase::kWaiting || began_ || !MayRetry(Failure::kHung)) return;
  if (now - hung_asked_ < Duration::Millis(500)) return;
  hung_asked_ = now;
  if (gateway_.retry_budget().TryRetry(now)) return Fail(Failure::kHung, true);
  ++gateway_.counters().retries_denied;
}

Duration Exchange::QuietBound(Instant) const {
  // Before an engine has been measured: five times what a slow one (5 ms a prompt token) would take.
  const Duration slow = Duration::Millis(200) + Duration::Millis(5) * meta_.prompt_tokens.value();
  if (!choice_.prediction) return slow * 5;
  const Prediction& p = *choice_.prediction;
  if (!stream_) return (p.e2e_p90 + slow) * 5;
  return began_ ? p.longest_gap * 5 : std::max(p.ttft_p90, slow) * 5;
}

void Exchange::Sweep(Instant now) {
  const GatewayConfig& c = gateway_.config();
  if (phase_ == Phase::kQueued && now - started_ > c.queue_timeout) {
    ++gateway_.counters().shed;
    return Refuse({429, "The request waited too long for a place here.", "rate_limit_error", "", "queue_timeout", 1});
  }
  if ((phase_ == Phase::kConnecting || phase_ == Phase::kVerifying) && now - sent_at_ > c.dead_after)
    return Fail(stale_retried_ ? Failure::kCrashed : Failure::kRefused);
  if (phase_ != Phase::kQueued && now - started_ > c.request_timeout) {
    ++gateway_.counters().timed_out;
    if (began_) return CutStream();
    ++gateway_.counters().failed;
    gateway_.routing().OnCancelled(meta_.id, engine_->id, now);
    return Refuse({504, "The request took longer than request_timeout_secs.", "server_error", "", "request_timeout", {}});
  }
  const bool hung = engine_ != nullptr && engine_->health.trouble() == EngineTrouble::kHung;
  if (began_ && hung && now - engine_->last_byte > c.dead_after * kMostTimeouts) CutStream();
}

}  // namespace foretoken
