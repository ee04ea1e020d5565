//   HTTP thread --SubmitHttpCall, WithdrawCall--> client actor --ScheduleCall, WithdrawCall--> SCHEDULER or NODE;  --FollowCall--> NODE
//   HTTP thread <--posted-- client actor <--DecisionNote, TokenEvent, RequestOutcome, RejectNote--
#include "integration/serve/node_front.h"

#include <algorithm>
#include <caf/all.hpp>
#include <thread>
#include <unordered_map>
#include <utility>

#include "actors/protocol.h"
#include "integration/engines/emulated/prompt_segments.h"
#include "integration/gateway/gateway_config.h"
#include "integration/gateway/gateway_server.h"
#include "integration/http/event_loop.h"
#include "integration/http/http_server.h"
#include "integration/load/openai_text.h"
#include "integration/serve/http_front.h"

namespace foretoken {
namespace {

constexpr int64_t kDefaultTokens = 128;  // of output, when a request sets no limit

struct SubmitHttpCall {
  RequestPtr request;
  bool stream = false;
};

// What has become of a request; told on the client actor's thread.
struct FrontEvents {
  std::function<void(RequestId, int32_t tokens)> on_tokens;  // known so far
  std::function<void(RequestId, int32_t tokens)> on_end;
  std::function<void(RequestId, OutcomeReason)> on_refused;
};

struct ClientSetup {
  HostClock clock;
  caf::actor node;
  std::vector<caf::actor> schedulers;
  FrontEvents events;
};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::SubmitHttpCall)

namespace foretoken {
namespace {

struct ClientState {
  std::unordered_map<RequestId, bool> streams;  // under way: whether every token is wanted
  static inline const char* name = "http_client";
};

caf::behavior HttpClient(caf::stateful_actor<ClientState>* self, const std::shared_ptr<ClientSetup>& setup) {
  const auto scheduler_of = [setup](RequestId id) {
    return setup->schedulers.empty() ? setup->node : setup->schedulers[id.value() % setup->schedulers.size()];
  };
  return {
      [self, setup, scheduler_of](const SubmitHttpCall& call) {
        auto request = std::make_shared<RequestMeta>(*call.request);
        request->arrival = setup->clock.Now();
        self->state.streams.emplace(request->id, call.stream);
        self->send(scheduler_of(request->id), ScheduleCall{request, request->arrival});
      },
      [self, scheduler_of](const WithdrawCall& call) {
        if (self->state.streams.count(call.request) > 0) self->send(scheduler_of(call.request), call);
      },
      [self, setup](const DecisionNote& note) {
        const auto at = self->state.streams.find(note.decision.request);
        if (at == self->state.streams.end() || !at->second || note.decision.placement.empty()) return;
        self->send(setup->node, FollowCall{note.decision.request, note.decision.placement.front().instance});
      },
      [self, setup](const TokenEvent& event) {
        if (self->state.streams.count(event.request) > 0) setup->events.on_tokens(event.request, event.first + event.count);
      },
      [self, setup](const RequestOutcome& o) {
        if (self->state.streams.erase(o.request) == 0) return;
        if (o.kind == OutcomeKind::kFinished) {
          setup->events.on_end(o.request, static_cast<int32_t>(o.output_tokens.value()));
        } else {
          setup->events.on_refused(o.request, o.reason);
        }
      },
      [self, setup](const RejectNote& note) {
        if (self->state.streams.erase(note.request) > 0) setup->events.on_refused(note.request, note.reason);
      },
  };
}

struct Refusal {
  int status;
  std::string type, message;
};

Refusal RefusalOf(OutcomeReason reason) {
  switch (reason) {
    case OutcomeReason::kTooLong: return {400, "BadRequestError", "the prompt is longer than the model's context"};
    case OutcomeReason::kNeverFits: return {400, "BadRequestError", "the request needs more KV cache than there is"};
    case OutcomeReason::kShed: return {503, "overloaded", "the cluster is overloaded: try again later"};
    case OutcomeReason::kNoCandidate: return {503, "service_unavailable", "no engine of this model can be reached"};
    default: return {502, "engine_failed", "the engines that had the request failed"};
  }
}

}  // namespace

class NodeFront::Impl {
 public:
  Impl(caf::actor_system& system, const HostClock& clock, NodeFrontOptions options)
      : system_(system), clock_(clock), o_(std::move(options)), next_(o_.first_request) {}
  ~Impl() {
    Stop();
    if (loop_) loop_->Stop();
    if (thread_.joinable()) thread_.join();
    if (client_) {
      caf::anon_send_exit(client_, caf::exit_reason::user_shutdown);
      caf::scoped_actor self(system_);
      self->wait_for(client_);  // it calls back into this
    }
    server_.reset();  // its connections' answers are listed here
  }

  Status Start() {
    auto loop = EventLoop::Make();
    if (!loop.ok()) return loop.error();
    loop_ = std::move(loop).value();
    server_ =
        std::make_unique<HttpServer>(*loop_, [this](HttpConnection& c, const HttpServer::Request& r) { OnRequest(c, r); });
    const auto port = server_->Listen("127.0.0.1", 0);
    if (!port.ok()) return port.error();
    auto setup = std::make_shared<ClientSetup>(ClientSetup{clock_, o_.node, o_.schedulers, Events()});
    client_ = system_.spawn(HttpClient, setup);
    thread_ = std::thread([this] { loop_->Run(); });
    auto config = GatewayConfigOf(*o_.topology, {{"cluster", "http://127.0.0.1:" + std::to_string(*port)}});
    if (!config.ok()) return config.error();
    // Placement is the SCHEDULERs': here there is one worker, the cluster.
    config->policy = "round_robin";
    config->shed_above = 0;
    config->board = o_.board;
    config->decision_headers = false;
    gateway_ = std::make_unique<GatewayServer>(*config);
    const Status started = gateway_->Start();
    if (!started.ok()) return started;
    url_ = "http://" + config->host + ":" + std::to_string(gateway_->port());
    return Status();
  }
  bool Stop() {
    const bool drained = gateway_ == nullptr || gateway_->Stop();
    gateway_.reset();
    return drained;
  }
  const std::string& url() const { return url_; }

 private:
  // One request's answer, owned by its connection.
  class Answer final : public HttpExchange {
   public:
    Answer(Impl& front, HttpConnection& connection, const EngineCall& call, RequestId id, int64_t prompt_tokens)
        : front_(front),
          connection_(connection),
          stream_(call.stream),
          include_usage_(call.include_usage),
          limit_(call.tokens),
          id_(id),
          prompt_tokens_(prompt_tokens),
          text_(call, (call.chat ? "chatcmpl-" : "cmpl-") + std::to_string(id.value())) {}
    ~Answer() override {
      if (front_.answers_.erase(id_) > 0) caf::anon_send(front_.client_, WithdrawCall{id_});
    }

    // Each may find the client gone and destroy this. `known`: tokens so far, of this attempt: one that begins anew tells no less to the client.
    void OnTokens(int32_t known) {
      if (!stream_ || known <= tokens_) return;
      if (!Begin()) return;
      std::string events;
      for (; tokens_ < known; ++tokens_) events += text_.Chunk("tok ");
      connection_.SendChunk(events);
    }
    void End(int32_t tokens) {
      front_.answers_.erase(id_);
      const std::string_view finish = tokens < limit_ ? "\"stop\"" : "\"length\"";
      if (!stream_) {
        std::string all;
        for (int32_t i = 0; i < tokens; ++i) all += "tok ";
        return connection_.Reply(200, "application/json", text_.Whole(all, finish, prompt_tokens_, tokens));
      }
      if (!Begin()) return;
      std::string last;
      for (; tokens_ < tokens; ++tokens_) last += text_.Chunk("tok ");
      last += text_.Chunk("", finish);
      if (include_usage_) last += text_.UsageChunk(prompt_tokens_, tokens);
      connection_.EndStream(last + "data: [DONE]\n\n");
    }
    void Fail(const Refusal& why) {
      front_.answers_.erase(id_);
      const std::string body = ErrorBody(why.type, why.message, why.status);
      if (!begun_) return connection_.Reply(why.status, "application/json", body);
      connection_.EndStream("data: " + body + "\n\n");
    }

   private:
    bool Begin() { return std::exchange(begun_, true) || connection_.BeginStream("text/event-stream; charset=utf-8", true); }

    Impl& front_;
    HttpConnection& connection_;
    bool stream_, include_usage_;
    bool begun_ = false;  // the status has gone out
    int64_t limit_;
    RequestId id_;
    int64_t prompt_tokens_;
    int32_t tokens_ = 0;  // sent
    AnswerText text_;
  };

  FrontEvents Events() {
    const auto with = [this](RequestId id, std::function<void(Answer&)> use) {
      loop_->Post([this, id, use = std::move(use)] {
        const auto at = answers_.find(id);
        if (at != answers_.end()) use(*at->second);
      });
    };
    return {[with](RequestId id, int32_t tokens) { with(id, [tokens](Answer& a) { a.OnTokens(tokens); }); },
            [with](RequestId id, int32_t tokens) { with(id, [tokens](Answer& a) { a.End(tokens); }); },
            [with](RequestId id, OutcomeReason reason) { with(id, [reason](Answer& a) { a.Fail(RefusalOf(reason)); }); }};
  }

  void OnRequest(HttpConnection& connection, const HttpServer::Request& request) {
    const std::string_view target = request.head.target();
    const std::string_view path = target.substr(0, target.find('?'));
    if (path == "/v1/chat/completions" || path == "/v1/completions")
      return Generate(connection, request, path == "/v1/chat/completions");
    if (path == "/health") return connection.Reply(200, "text/plain", "");
    if (path == "/v1/models")
      return connection.Reply(200, "application/json",
                              ModelsBody(o_.topology->models, o_.topology->engines.front().limits.max_model_len));
    connection.Reply(404, "application/json", ErrorBody("not_found", "no such path", 404));
  }

  void Generate(HttpConnection& connection, const HttpServer::Request& request, bool chat) {
    const auto refuse = [&connection](int status, std::string_view type, const std::string& why) {
      connection.Reply(status, "application/json", ErrorBody(type, why, status));
    };
    if (request.head.method() != "POST") return refuse(405, "invalid_request_error", "method not allowed");
    const auto call = ParseEngineCall(request.body, chat, kDefaultTokens, true);
    if (!call.ok()) return refuse(400, "BadRequestError", call.error().message);
    const auto model = o_.topology->FindModel(call->model);
    if (!model) return refuse(404, "NotFoundError", "The model `" + call->model + "` does not exist.");
    auto meta = std::make_shared<RequestMeta>();
    meta->id = RequestId(next_++);
    meta->model = *model;
    meta->prompt_tokens = TokenCount(PromptTokensOf(*call));
    meta->max_tokens = TokenCount(call->tokens);
    meta->priority = call->priority;
    meta->segments = SegmentsOf(*call, meta->prompt_tokens.value());
    auto answer = std::make_unique<Answer>(*this, connection, *call, meta->id, meta->prompt_tokens.value());
    answers_.emplace(meta->id, answer.get());
    connection.Hold(std::move(answer));
    caf::anon_send(client_, SubmitHttpCall{std::move(meta), call->stream});
  }

  caf::actor_system& system_;
  HostClock clock_;
  NodeFrontOptions o_;
  uint64_t next_;
  std::unique_ptr<EventLoop> loop_;
  std::unordered_map<RequestId, Answer*> answers_;  // under way; the connections own them. The loop's thread
  std::unique_ptr<HttpServer> server_;
  caf::actor client_;
  std::thread thread_;
  std::unique_ptr<GatewayServer> gateway_;
  std::string url_;
};

NodeFront::NodeFront(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

NodeFront::~NodeFront() = default;

Result<std::unique_ptr<NodeFront>> NodeFront::Start(caf::actor_system& system, const HostClock& clock,
                                                    NodeFrontOptions options) {
  auto impl = std::make_unique<Impl>(system, clock, std::move(options));
  const Status started = impl->Start();
  if (!started.ok()) return started.error();
  return std::unique_ptr<NodeFront>(new NodeFront(std::move(impl)));
}

const std::string& NodeFront::url() const { return impl_->url(); }

bool NodeFront::Stop() { return impl_->Stop(); }

}  // namespace foretoken
