// `foretoken replay`: runs a recorded session again and checks that the decisions are the same. `foretoken explain`: why one request went
// where it went, from the same log.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/cli/commands.h"
#include "integration/cli/explain_verdict.h"
#include "integration/recorder/replay_log.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string log;
  std::optional<uint64_t> request;  // absent: all
  bool json = false;
};

int Complain(const std::string& message) {
  std::cerr << "foretoken: " << message << "\n";
  return kExitUsage;
}

int Replay(const Arguments& a) {
  const auto r = ReplayLog(a.log, nullptr);
  if (!r.ok()) return Complain(r.error().message);
  const bool same = r->different == 0 && r->extra <= r->session.schedulers && r->predictions_identical == r->predictions;
  if (a.json) {
    std::cout << json::object{{"records", r->records},
                              {"decisions", r->decisions},
                              {"identical", r->identical},
                              {"different", r->different},
                              {"extra", r->extra},
                              {"first_difference", r->first_difference},
                              {"predictions", r->predictions},
                              {"predictions_identical", r->predictions_identical},
                              {"first_prediction_difference", r->first_prediction_difference},
                              {"seconds", r->span.seconds()},
                              {"full", r->full},
                              {"damaged", r->damaged}}
              << "\n";
  } else {
    std::printf("%s: %llu records over %.1f s: %llu of %llu decisions made again alike\n", a.log.c_str(),
                static_cast<unsigned long long>(r->records), r->span.seconds(), static_cast<unsigned long long>(r->identical),
                static_cast<unsigned long long>(r->decisions));
    if (!r->first_difference.empty()) std::printf("  first difference: %s\n", r->first_difference.c_str());
    if (r->predictions > 0)
      std::printf("  %llu of %llu predictions and answers of simulators made again alike\n",
                  static_cast<unsigned long long>(r->predictions_identical), static_cast<unsigned long long>(r->predictions));
    if (!r->first_prediction_difference.empty())
      std::printf("  first difference of a simulator: %s\n", r->first_prediction_difference.c_str());
    if (r->full) std::printf("  the log reached its size; what came after is not in it\n");
    if (!r->damaged.empty()) std::printf("  the log is damaged: %s\n", r->damaged.c_str());
  }
  return same && r->damaged.empty() ? kExitOk : kExitFailed;
}

double Millis(Duration d) { return static_cast<double>(d.nanos()) / 1e6; }

std::string_view ReasonName(OutcomeReason reason) {
  static constexpr std::string_view kNames[] = {"none",         "stop", "length",           "too long",    "never fits",
                                                "no candidate", "shed", "engine restarted", "engine down", "retries exhausted",
                                                "client gone"};
  return kNames[static_cast<size_t>(reason)];
}

std::string_view LevelName(StateLevel level) {
  static constexpr std::string_view kNames[] = {"exact", "following", "aggregate", "inferred"};
  return kNames[static_cast<size_t>(level)];
}

// Collects what the log says of one request.
class Story final : public ReplayObserver {
 public:
  explicit Story(RequestId request) : request_(request) {}

  void OnRecord(const LogRecord& record) override {
    const Instant at = record.at;
    if (const auto* d = std::get_if<DeadlineRecord>(&record.body)) {
      if (rounds_.count(d->decision.value()) > 0) Tell(at, "deadline", "the deadline passed: decided with what had answered");
    } else if (const auto* r = std::get_if<RejectionRecord>(&record.body)) {
      if (r->request == request_) Tell(at, "rejected", "rejected: " + std::string(ReasonName(r->reason)));
    } else if (const auto* m = std::get_if<Message>(&record.body)) {
      Take(*m, at);
    }
  }
  void OnDecision(const LogRecord&, const Decision&, bool) override {}
  void OnChosen(const LogRecord& record, DecisionId decision, RequestId request, const std::string& policy,
                const std::vector<CandidateView>& candidates) override {
    if (request != request_) return;
    json::array rows;
    for (const CandidateView& c : candidates) rows.push_back(Describe(c));
    events_.push_back({{"at_s", record.at.seconds()},
                       {"event", "chosen"},
                       {"decision", decision.value()},
                       {"policy", policy},
                       {"candidates", std::move(rows)}});
    rounds_.insert(decision.value());
  }

  std::vector<json::object> TakeEvents(const std::vector<std::string>& instances) {
    for (json::object& e : events_)
      if (const auto* i = e.if_contains("instance_index")) {
        const auto index = static_cast<size_t>(i->to_number<uint64_t>());
        e["instance"] = index < instances.size() ? instances[index] : "?";
        e.erase("instance_index");
      }
    return std::move(events_);
  }

 private:
  void Tell(Instant at, const char* event, const std::string& text) {
    events_.push_back({{"at_s", at.seconds()}, {"event", event}, {"text", text}});
  }
  void Take(const Message& message, Instant at) {
    if (const auto* s = std::get_if<Schedule>(&message); s != nullptr && s->request.id == request_) {
      Tell(at, "scheduled",
           std::to_string(s->request.prompt_tokens.value()) + " prompt tokens; " + std::to_string(Millis(at - s->submitted)) +
               " ms after it was submitted");
    } else if (const auto* t = std::get_if<TokenEvent>(&message); t != nullptr && t->request == request_ && t->first == 0) {
      Tell(at, "first_token", "first token");
    } else if (const auto* o = std::get_if<RequestOutcome>(&message); o != nullptr && o->request == request_) {
      TakeOutcome(*o, at);
    } else if (const auto* d = std::get_if<Decision>(&message);
               d != nullptr && d->request == request_ && !d->placement.empty()) {
      events_.push_back({{"at_s", at.seconds()},
                         {"event", "decided"},
                         {"decision", d->decision.value()},
                         {"instance_index", d->placement.front().instance.value()},
                         {"score", d->score},
                         {"answered_by", NameOf(d->predictor)}});
    } else if (const auto* e = std::get_if<EnqueueReply>(&message)) {
      if (!e->accepted && rounds_.count(e->decision.value()) > 0)
        Tell(at, "overtaken", "other reservations had overtaken the prediction: picked again");
    }
  }
  void TakeOutcome(const RequestOutcome& o, Instant at) {
    if (o.kind == OutcomeKind::kFinished) {
      Tell(at, "finished", "finished with " + std::to_string(o.output_tokens.value()) + " tokens");
    } else {
      Tell(at, o.kind == OutcomeKind::kCancelled ? "cancelled" : "failed",
           (o.kind == OutcomeKind::kCancelled ? "cancelled: " : "its engine failed: ") + std::string(ReasonName(o.reason)));
    }
  }
  static json::object Describe(const CandidateView& c) {
    json::object d{{"instance", c.instance}, {"requests", c.load.requests}, {"predicted", c.predicted}};
    if (std::isfinite(c.score)) d["score"] = c.score;
    if (!c.predicted) return d;
    const Prediction& p = c.prediction;
    d["ttft_ms"] = Millis(p.ttft);
    d["ttft_p90_ms"] = Millis(p.ttft_p90);
    d["e2e_ms"] = Millis(p.e2e);
    d["e2e_p90_ms"] = Millis(p.e2e_p90);
    d["slo_violation"] = p.slo_violation;
    d["cached_tokens"] = p.cached_tokens.value();
    d["age_ms"] = Millis(p.age);
    d["age_uncertainty_ms"] = Millis(p.age_uncertainty);
    d["state_version"] = p.versions.state;
    d["reservations_version"] = p.versions.reservations;
    d["state_level"] = LevelName(p.level);
    d["stale"] = p.stale;
    d["usable"] = p.usable;
    d["predictor"] = NameOf(p.predictor);
    return d;
  }

  RequestId request_;
  std::set<uint64_t> rounds_;
  std::vector<json::object> events_;
};

// Collects the session's decisions, and when instances came and went.
class Timeline final : public ReplayObserver {
 public:
  void OnRecord(const LogRecord& record) override {
    if (const auto* d = std::get_if<DeadlineRecord>(&record.body)) {
      rounds_[{record.scheduler, d->decision.value()}].expired = true;
    } else if (const auto* c = std::get_if<CandidateRecord>(&record.body)) {
      events_.push_back({{"at_s", record.at.seconds()},
                         {"event", c->usable ? "usable" : "not_usable"},
                         {"scheduler", record.scheduler},
                         {"instance_index", c->instance.value()}});
    } else if (const auto* j = std::get_if<JoinRecord>(&record.body); j != nullptr && record.scheduler != kSimulatorRecords) {
      AddMembership(record, "joined", j->instance);
    } else if (const auto* l = std::get_if<LeftRecord>(&record.body); l != nullptr && record.scheduler != kSimulatorRecords) {
      AddMembership(record, "left", l->instance);
    }
  }
  void AddMembership(const LogRecord& record, const char* event, InstanceId instance) {
    events_.push_back({{"at_s", record.at.seconds()},
                       {"event", event},
                       {"scheduler", record.scheduler},
                       {"instance_index", instance.value()}});
  }
  void OnChosen(const LogRecord& record, DecisionId decision, RequestId, const std::string&,
                const std::vector<CandidateView>& candidates) override {
    Round& r = rounds_[{record.scheduler, decision.value()}];
    r.candidates = candidates.size();
    r.answered = static_cast<size_t>(std::count_if(candidates.begin(), candidates.end(), [](auto& c) { return c.predicted; }));
    for (const CandidateView& c : candidates) r.predicted[c.instance] = c.predicted;
  }
  void OnDecision(const LogRecord& record, const Decision& d, bool alike) override {
    json::object e{{"at_s", record.at.seconds()},
                   {"event", "rejected"},
                   {"scheduler", record.scheduler},
                   {"request", d.request.value()},
                   {"alike", alike}};
    if (d.placement.empty()) {
      e["reason"] = ReasonName(d.reason);
    } else {
      e["event"] = "decided";
      e["instance_index"] = d.placement.front().instance.value();
      e["decision"] = d.decision.value();
      e["answered_by"] = NameOf(d.predictor);
    }
    events_.push_back(std::move(e));
  }
  // Of what OnChosen told, which comes while a record is played: after it, or with it.
  std::vector<json::object> TakeEvents(const std::vector<std::string>& instances) {
    for (json::object& e : events_) {
      if (const auto* i = e.if_contains("instance_index")) {
        const auto index = static_cast<size_t>(i->to_number<uint64_t>());
        e["instance"] = index < instances.size() ? instances[index] : "?";
        e.erase("instance_index");
      }
      if (!e.contains("decision")) continue;
      const Round& r =
          rounds_[{static_cast<uint32_t>(e.at("scheduler").to_number<uint64_t>()), e.at("decision").to_number<uint64_t>()}];
      const auto chosen = r.predicted.find(json::value_to<std::string>(e.at("instance")));
      e["candidates"] = r.candidates;
      e["answered"] = r.answered;
      e["predicted"] = chosen != r.predicted.end() && chosen->second;
      e["deadline_passed"] = r.expired;
    }
    return std::move(events_);
  }

 private:
  struct Round {
    size_t candidates = 0, answered = 0;
    bool expired = false;
    std::map<std::string, bool> predicted;  // by instance
  };
  std::map<std::pair<uint32_t, uint64_t>, Round> rounds_;
  std::vector<json::object> events_;
};

int ExplainAll(const Arguments& a) {
  Timeline timeline;
  const auto r = ReplayLog(a.log, &timeline);
  if (!r.ok()) return Complain(r.error().message);
  const std::vector<json::object> events = timeline.TakeEvents(r->instances);
  if (a.json) {
    std::cout << json::object{{"zero_s", static_cast<double>(r->session.zero_ns) / 1e9},
                              {"events", json::value_from(events)},
                              {"replayed_alike", r->different == 0}}
              << "\n";
    return kExitOk;
  }
  for (const json::object& e : events) {
    const auto text = [&e](const char* key) { return json::value_to<std::string>(e.at(key)); };
    std::printf("%10.3f s  ", e.at("at_s").as_double());
    if (e.at("event") == "decided") {
      std::printf("request %llu to %s by %s; %lld of %lld candidates answered%s\n",
                  static_cast<unsigned long long>(e.at("request").to_number<uint64_t>()), text("instance").c_str(),
                  text("answered_by").c_str(), static_cast<long long>(e.at("answered").to_number<int64_t>()),
                  static_cast<long long>(e.at("candidates").to_number<int64_t>()),
                  e.at("deadline_passed").as_bool() ? ", the deadline passed" : "");
    } else if (e.at("event") == "rejected") {
      std::printf("request %llu rejected: %s\n", static_cast<unsigned long long>(e.at("request").to_number<uint64_t>()),
                  text("reason").c_str());
    } else {
      std::printf("%s %s\n", text("instance").c_str(), e.at("event") == "usable" ? "may be chosen" : "may not be chosen");
    }
  }
  return kExitOk;
}

void PrintCandidates(const json::object& e) {
  std::printf("%10.3f s  candidates under %s:\n", e.at("at_s").as_double(),
              json::value_to<std::string>(e.at("policy")).c_str());
  for (const auto& value : e.at("candidates").as_array()) {
    const json::object& c = value.as_object();
    std::printf("      %-16s score %s", json::value_to<std::string>(c.at("instance")).c_str(),
                c.contains("score") ? std::to_string(c.at("score").as_double()).c_str() : "left out");
    if (c.at("predicted").as_bool()) {
      std::printf("; TTFT %.1f ms, E2E %.1f ms, state %llu (%s), %.0f ms old%s, by %s\n", c.at("ttft_ms").as_double(),
                  c.at("e2e_ms").as_double(), static_cast<unsigned long long>(c.at("state_version").to_number<uint64_t>()),
                  json::value_to<std::string>(c.at("state_level")).c_str(), c.at("age_ms").as_double(),
                  c.at("stale").as_bool() ? " (stale)" : "", json::value_to<std::string>(c.at("predictor")).c_str());
    } else {
      std::printf("; no prediction: %lld requests there by the ledger\n",
                  static_cast<long long>(c.at("requests").to_number<int64_t>()));
    }
  }
}

int Explain(const Arguments& a) {
  if (!a.request) return ExplainAll(a);
  Story story{RequestId(*a.request)};
  const auto r = ReplayLog(a.log, &story);
  if (!r.ok()) return Complain(r.error().message);
  const std::vector<json::object> events = story.TakeEvents(r->instances);
  if (events.empty()) return Complain(a.log + " says nothing of request " + std::to_string(*a.request));
  if (a.json) {
    std::cout << json::object{{"request", *a.request},
                              {"events", json::value_from(events)},
                              {"verdict", VerdictOf(events)},
                              {"replayed_alike", r->different == 0}}
              << "\n";
    return kExitOk;
  }
  std::printf("request %llu\n", static_cast<unsigned long long>(*a.request));
  for (const json::object& e : events) {
    if (e.at("event") == "chosen") {
      PrintCandidates(e);
    } else if (e.at("event") == "decided") {
      std::printf("%10.3f s  decided: %s, score %g, answered by %s\n", e.at("at_s").as_double(),
                  json::value_to<std::string>(e.at("instance")).c_str(), e.at("score").as_double(),
                  json::value_to<std::string>(e.at("answered_by")).c_str());
    } else {
      std::printf("%10.3f s  %s\n", e.at("at_s").as_double(), json::value_to<std::string>(e.at("text")).c_str());
    }
  }
  PrintVerdict(VerdictOf(events));
  return kExitOk;
}

}  // namespace

void AddReplayCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("replay", "Runs a recorded session again and checks that the decisions are the same");
  c->add_option("--log", a->log, "Log of `foretoken serve --record`")->required()->check(CLI::ExistingFile);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken replay --log session.log\nExit code 1: a decision differs, or the log is damaged.");
  c->callback([a, &exit_code] { exit_code = Replay(*a); });
}

void AddExplainCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("explain", "Why a request went where it went: candidates, predictions, what happened");
  c->add_option("--log", a->log, "Log of `foretoken serve --record`")->required()->check(CLI::ExistingFile);
  c->add_option("request", a->request, "The request's number; without it, a line for every decision");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken explain --log session.log 17");
  c->callback([a, &exit_code] { exit_code = Explain(*a); });
}

}  // namespace foretoken
