#include "integration/load/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "integration/http/event_loop.h"

namespace foretoken {
namespace {

std::vector<pid_t> TreeOf(pid_t root) {
  std::vector<pid_t> tree = {root};
  for (size_t i = 0; i < tree.size(); ++i) {
    const std::string pid = std::to_string(tree[i]);
    std::ifstream children("/proc/" + pid + "/task/" + pid + "/children");
    for (pid_t child; children >> child;) tree.push_back(child);
  }
  return tree;
}

// In the child: never returns.
[[noreturn]] void Become(const std::vector<std::string>& argv, int out, const std::string& errors, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it ended before the line above
  dup2(out, STDOUT_FILENO);
  const int err = open(errors.empty() ? "/dev/null" : errors.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (err >= 0) dup2(err, STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& a : argv) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::vector<std::string>& argv, const std::string& errors) {
  std::array<int, 2> out;
  if (pipe2(out.data(), O_CLOEXEC) != 0) return Error{std::string("pipe: ") + std::strerror(errno)};
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Become(argv, out[1], errors, parent);
  close(out[1]);
  if (pid < 0) {
    close(out[0]);
    return Error{argv[0] + ": cannot start it: " + std::strerror(errno)};
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, out[0], argv[0]));
}

ChildProcess::~ChildProcess() {
  const std::vector<pid_t> tree = TreeOf(pid_);
  kill(pid_, SIGCONT);
  kill(pid_, SIGTERM);
  for (int i = 0; i < 200 && waitpid(pid_, nullptr, WNOHANG) == 0; ++i) usleep(10'000);
  for (const pid_t p : tree) kill(p, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(out_);
}

bool ChildProcess::running() const {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

Result<std::string> ChildProcess::LineWith(const std::string& text, Duration limit) {
  const Instant until = EventLoop::Now() + limit;
  for (;;) {
    for (size_t end = read_.find('\n'); end != read_.npos; end = read_.find('\n')) {
      std::string line = read_.substr(0, end);
      read_.erase(0, end + 1);
      if (line.find(text) != line.npos) return line;
    }
    const Duration left = until - EventLoop::Now();
    if (left <= Duration()) return Error{name_ + ": did not say \"" + text + "\" in time"};
    pollfd p{out_, POLLIN, 0};
    if (poll(&p, 1, static_cast<int>(left.nanos() / 1'000'000 + 1)) <= 0) continue;
    std::array<char, 4'096> buffer;
    const ssize_t n = read(out_, buffer.data(), buffer.size());
    if (n <= 0) return Error{name_ + ": ended without saying \"" + text + "\""};
    read_.append(buffer.data(), static_cast<size_t>(n));
  }
}

Duration ChildProcess::cpu() const {
  Duration total;
  for (const pid_t p : TreeOf(pid_)) {
    clockid_t clock;
    timespec t;
    if (clock_getcpuclockid(p, &clock) != 0 || clock_gettime(clock, &t) != 0) continue;  // it ended meanwhile
    total += Duration::Nanos(static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec);
  }
  return total;
}

double ChildProcess::peak_rss_mb() const {
  double kb = 0;
  for (const pid_t p : TreeOf(pid_)) {
    std::ifstream status("/proc/" + std::to_string(p) + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmHWM:")) kb += std::stod(line.substr(6));
  }
  return kb / 1e3;
}

Result<std::unique_ptr<ChildProcess>> StartSelf(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "/proc/self/exe");
  return ChildProcess::Start(arguments);
}

}  // namespace foretoken
