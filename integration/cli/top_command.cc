// `foretoken top`: a running system in a terminal: a process by its dashboard's address, or the nodes of a topology. Without a terminal, or
// with --once, plain lines.
#include <ncurses.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "integration/cli/commands.h"
#include "integration/cli/running_system.h"
#include "integration/cli/top_view.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string target = "30080";
  std::string topology;
  std::vector<std::string> set;
  double interval = 1;
  bool once = false;
};

volatile std::sig_atomic_t g_stop = 0;

extern "C" void StopTop(int) { g_stop = 1; }

// One system, or why it does not answer.
struct Answer {
  std::string name;
  json::object observation;
  std::string error;
};

class Source {
 public:
  static Result<Source> Of(const Arguments& a) {
    Source s;
    s.target_ = a.target;
    if (a.topology.empty()) return s;
    auto nodes = RunningNodes::Of(a.topology, a.set);
    if (!nodes.ok()) return nodes.error();
    s.nodes_ = std::move(nodes).value();
    return s;
  }
  std::vector<Answer> Ask() const {
    std::vector<Answer> out;
    if (!nodes_) {
      const auto text = FetchStatus(target_);
      out.push_back(Parse(target_, text.ok() ? *text : "", text.ok() ? "" : text.error().message, ""));
      return out;
    }
    for (const NodeSpec& node : nodes_->nodes()) {
      const auto reply = nodes_->Ask(node, "status", {});
      const bool good = reply.ok() && reply->ok;
      const std::string why = good ? "" : reply.ok() ? reply->text : reply.error().message;
      out.push_back(Parse(node.name, good ? reply->text : "", why, "observed"));
    }
    return out;
  }

 private:
  static Answer Parse(const std::string& name, const std::string& text, std::string error, const char* key) {
    Answer a{name, {}, std::move(error)};
    if (!a.error.empty()) return a;
    boost::system::error_code code;
    json::value v = json::parse(text, code);
    if (!code && v.is_object() && *key != '\0') {
      json::value* inner = v.as_object().if_contains(key);
      v = inner == nullptr ? json::value() : json::value(*inner);
    }
    if (code || !v.is_object() || !v.as_object().contains("system")) {
      a.error = *key != '\0' ? "it is not watched (--dashboard none)" : "what answers there is no dashboard";
      return a;
    }
    a.observation = std::move(v.as_object());
    return a;
  }

  std::string target_;
  std::optional<RunningNodes> nodes_;
};

std::vector<TopLine> LinesOf(const std::vector<Answer>& answers, size_t lines_most) {
  std::vector<TopLine> out;
  const size_t each = std::max<size_t>(8, lines_most / answers.size());
  for (const Answer& a : answers) {
    if (!a.error.empty()) {
      out.push_back({"!! " + a.name + ": " + a.error, TopTone::kTrouble});
      continue;
    }
    for (TopLine& line : TopOf(a.observation, each)) out.push_back(std::move(line));
  }
  return out;
}

int PrintPlain(const Source& source, const Arguments& a) {
  constexpr size_t kAll = 100'000;
  for (;;) {
    const std::vector<Answer> answers = source.Ask();
    bool all = true;
    for (const Answer& one : answers) all = all && one.error.empty();
    for (const TopLine& line : LinesOf(answers, kAll)) std::cout << line.text << "\n";
    std::cout << std::flush;
    if (a.once) return all ? kExitOk : kExitFailed;
    if (g_stop != 0 || !std::cout) return kExitOk;
    std::cout << "\n";
    for (double left = a.interval; left > 0 && g_stop == 0; left -= 0.1)
      std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left, 0.1)));
    if (g_stop != 0) return kExitOk;
  }
}

class Screen {
 public:
  Screen() {
    initscr();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    if (!has_colors() || std::getenv("NO_COLOR") != nullptr) return;
    start_color();
    use_default_colors();
    // Blue and orange differ for every kind of colour vision; without 256 colours, cyan and yellow do.
    const bool many = COLORS >= 256;
    init_pair(1, static_cast<short>(many ? 75 : COLOR_CYAN), -1);
    init_pair(2, static_cast<short>(many ? 208 : COLOR_YELLOW), -1);
    colours_ = true;
  }
  ~Screen() { endwin(); }

  void Show(const std::vector<TopLine>& lines) {
    erase();
    const int rows = std::min(static_cast<int>(lines.size()), LINES);
    for (int k = 0; k < rows; ++k) {
      const TopLine& line = lines[static_cast<size_t>(k)];
      const attr_t look = LookOf(line.tone);
      attron(look);
      mvaddnstr(k, 0, line.text.c_str(), COLS);
      attroff(look);
    }
    refresh();
  }
  // False: the user wants to leave.
  bool WaitFor(double seconds) {
    timeout(static_cast<int>(seconds * 1e3));
    const int key = getch();
    return key != 'q' && key != 'Q' && g_stop == 0;  // KEY_RESIZE draws anew at once
  }

 private:
  attr_t LookOf(TopTone tone) const {
    switch (tone) {
      case TopTone::kTitle: return A_BOLD | (colours_ ? static_cast<attr_t>(COLOR_PAIR(1)) : 0);
      case TopTone::kTrouble: return A_BOLD | (colours_ ? static_cast<attr_t>(COLOR_PAIR(2)) : A_REVERSE);
      case TopTone::kNotice: return A_BOLD;
      case TopTone::kPlain: return A_NORMAL;
    }
    return A_NORMAL;
  }
  bool colours_ = false;
};

int Top(const Arguments& a) {
  const auto source = Source::Of(a);
  if (!source.ok()) {
    std::cerr << "foretoken top: " << source.error().message << "\n";
    return kExitUsage;
  }
  std::signal(SIGINT, StopTop);
  std::signal(SIGTERM, StopTop);
  std::signal(SIGPIPE, SIG_IGN);
  const char* terminal = std::getenv("TERM");
  const bool screen = !a.once && isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0 && terminal != nullptr &&
                      std::string(terminal) != "dumb";
  if (!screen) return PrintPlain(*source, a);
  std::setlocale(LC_CTYPE, "");
  Screen s;
  do {
    std::vector<TopLine> lines = LinesOf(source->Ask(), static_cast<size_t>(std::max(2, LINES - 1)));
    lines.push_back({"q ends", TopTone::kPlain});
    s.Show(lines);
  } while (s.WaitFor(a.interval));
  return kExitOk;
}

}  // namespace

void AddTopCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("top", "A running system in the terminal: engines, latencies, errors, what happened lately");
  c->add_option("dashboard", a->target, "URL, HOST:PORT or port of its dashboard")->capture_default_str();
  c->add_option("--topology", a->topology, "Topology file: its nodes are asked instead")->check(CLI::ExistingFile);
  c->add_option("--set", a->set, "Override a topology value: path=value");
  c->add_option("--interval", a->interval, "Seconds between two looks")->check(CLI::Range(0.2, 3600.0))->capture_default_str();
  c->add_flag("--once", a->once, "Look once and print plain lines; exit code 1 if something does not answer");
  c->footer(
      "Examples:\n"
      "  foretoken top 127.0.0.1:30080\n"
      "  foretoken top --topology configs/topologies/cluster.yaml --once");
  c->callback([a, &exit_code] { exit_code = Top(*a); });
}

}  // namespace foretoken
