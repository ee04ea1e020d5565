// EventLoop: one thread's epoll with timers, for the programs that stand around the gateway (fake engines, load generators, emulated
// engines): their own cost is part of what they measure, so a request costs no allocation here and three system calls at the caller.
// Time is CLOCK_MONOTONIC, the same for all processes of a host; timers are due to the microsecond, not to epoll's millisecond.
// Not thread-safe but for Stop() and Post().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

class EventLoop {
 public:
  // Something with a file descriptor.
  class Source {
   public:
    virtual ~Source() = default;
    virtual void OnEvents(uint32_t epoll_events) = 0;
  };

  // Calls back once per Arm. Its destruction disarms it; the loop outlives it.
  class Timer {
   public:
    Timer(EventLoop& loop, std::function<void()> due) : loop_(loop), due_(std::move(due)), at_(loop.timers_.end()) {}
    ~Timer() { Disarm(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    void Arm(Instant at);  // instead of an earlier one
    void Disarm();

   private:
    friend class EventLoop;
    EventLoop& loop_;
    std::function<void()> due_;
    std::multimap<Instant, Timer*>::iterator at_;
  };

  static Result<std::unique_ptr<EventLoop>> Make();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  static Instant Now();

  // Level-triggered. Each descriptor belongs to one source, which outlives its being watched.
  void Watch(int fd, uint32_t epoll_events, Source* source);
  void Rewatch(int fd, uint32_t epoll_events, Source* source);
  void Unwatch(int fd);
  // Deletes it when no event of the present round can still reach it. Its descriptor is no longer watched.
  void Retire(std::unique_ptr<Source> source) { retired_.push_back(std::move(source)); }

  void Run();                             // until Stop()
  void RunUntil(Instant until);           // or Stop()
  void Stop();                            // any thread, or a signal handler
  void Post(std::function<void()> work);  // any thread; done by the loop's, while it runs

 private:
  EventLoop() = default;
  void Round(Instant until);
  void RunDueTimers();
  void RunPosted();
  void Wake();

  int epoll_ = -1;
  int wake_ = -1;  // eventfd
  std::atomic<bool> stopped_{false};
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;
  std::multimap<Instant, Timer*> timers_;
  std::vector<std::unique_ptr<Source>> retired_;
};

}  // namespace foretoken
