#include "integration/http/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace foretoken {

void EventLoop::Timer::Arm(Instant at) {
  Disarm();
  at_ = loop_.timers_.emplace(at, this);
}

void EventLoop::Timer::Disarm() {
  if (at_ == loop_.timers_.end()) return;
  loop_.timers_.erase(at_);
  at_ = loop_.timers_.end();
}

Result<std::unique_ptr<EventLoop>> EventLoop::Make() {
  std::unique_ptr<EventLoop> loop(new EventLoop);
  loop->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  loop->wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (loop->epoll_ < 0 || loop->wake_ < 0) return Error{std::string("cannot make an event loop: ") + std::strerror(errno)};
  loop->Watch(loop->wake_, EPOLLIN, nullptr);
  return loop;
}

EventLoop::~EventLoop() {
  retired_.clear();
  if (wake_ >= 0) close(wake_);
  if (epoll_ >= 0) close(epoll_);
}

Instant EventLoop::Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant::FromNanos(static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec);
}

void EventLoop::Watch(int fd, uint32_t epoll_events, Source* source) {
  epoll_event e{};
  e.events = epoll_events;
  e.data.ptr = source;
  FT_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) == 0);
}

void EventLoop::Rewatch(int fd, uint32_t epoll_events, Source* source) {
  epoll_event e{};
  e.events = epoll_events;
  e.data.ptr = source;
  FT_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &e) == 0);
}

void EventLoop::Unwatch(int fd) { FT_CHECK(epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr) == 0); }

void EventLoop::Stop() {
  stopped_ = true;
  Wake();
}

void EventLoop::Wake() {
  const uint64_t one = 1;
  while (write(wake_, &one, sizeof one) < 0 && errno == EINTR) {}
}

void EventLoop::Post(std::function<void()> work) {
  {
    const std::lock_guard<std::mutex> lock(posted_mutex_);
    posted_.push_back(std::move(work));
  }
  Wake();
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard<std::mutex> lock(posted_mutex_);
    work.swap(posted_);
  }
  for (const auto& one : work) one();
}

void EventLoop::RunDueTimers() {
  const Instant now = Now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Timer* timer = timers_.begin()->second;
    timer->Disarm();
    timer->due_();
  }
}

void EventLoop::Round(Instant until) {
  const Instant wake_at = timers_.empty() ? until : std::min(until, timers_.begin()->first);
  timespec wait{};
  const Duration left = std::max(wake_at - Now(), Duration());
  wait.tv_sec = left.nanos() / 1'000'000'000;
  wait.tv_nsec = left.nanos() % 1'000'000'000;
  std::array<epoll_event, 256> events;
  const int n = epoll_pwait2(epoll_, events.data(), events.size(), wake_at == Instant::Max() ? nullptr : &wait, nullptr);
  for (int i = 0; i < n; ++i) {
    if (auto* source = static_cast<Source*>(events[static_cast<size_t>(i)].data.ptr)) {
      source->OnEvents(events[static_cast<size_t>(i)].events);
    } else {
      uint64_t count;
      while (read(wake_, &count, sizeof count) > 0) {}
      RunPosted();
    }
  }
  RunDueTimers();
  retired_.clear();
}

void EventLoop::Run() { RunUntil(Instant::Max()); }

void EventLoop::RunUntil(Instant until) {
  thread_local const int punctual = prctl(PR_SET_TIMERSLACK, 1'000UL);  // ns; the default lets a thread's timers be 50 us late
  static_cast<void>(punctual);
  while (!stopped_ && Now() < until) Round(until);
}

}  // namespace foretoken
