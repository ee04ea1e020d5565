// ObservationFeed: one system's observations as text, made once for all who read them, and the course of its figures over the last minutes,
// so that a page that is opened now shows more than a moment. Owned by the dashboard's thread.
#pragma once

#include <array>
#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "integration/observe/fault_control.h"
#include "integration/observe/observation_board.h"

namespace foretoken {

// One system that a dashboard shows.
struct DashboardSource {
  std::string name;                         // in addresses: "cluster"
  std::string title;                        // for people: "Emulated cluster"
  std::shared_ptr<ObservationBoard> board;  // never null
  std::shared_ptr<FaultControl> faults;     // null: nothing can be broken
  // Set: what it gives is shown instead of what is on the board, where watchers are still counted. Observations of other processes; the
  // same pointer as before: nothing is new. Called on the dashboard's thread.
  std::function<std::shared_ptr<const boost::json::object>()> remote = {};
};

// ttft p50, p95, e2e p50, p95, arrivals/s, finished/s, output tokens/s, ttft bias, e2e bias, ttft |error| p50, decision p99
using CoursePoint = std::array<double, 11>;

class ObservationFeed {
 public:
  explicit ObservationFeed(DashboardSource source) : source_(std::move(source)) {}

  const DashboardSource& source() const { return source_; }
  // Looks at the board. True: there is a new observation.
  bool Refresh();
  // The latest as JSON, and the same as a frame of server-sent events; null before the first. Made when it is asked for first, with what is
  // then to be said of those who watch.
  std::shared_ptr<const std::string> Text(const boost::json::object& watch);
  std::shared_ptr<const std::string> FrameOf(const boost::json::object& watch);
  // What a page begins with: the course so far, and the latest observation.
  std::string Opening(const boost::json::object& watch);
  // Of the decision with this number ("0-17"), with every candidate; empty: not known any more.
  std::string Decision(std::string_view number) const;

 private:
  static constexpr size_t kPointsMost = 300;  // one a second

  void AddPoint(int64_t unix_ms, const CoursePoint& point);

  DashboardSource source_;
  std::shared_ptr<const Observation> latest_;
  std::shared_ptr<const boost::json::object> remote_;
  std::shared_ptr<const std::string> text_, frame_;
  std::deque<std::string> points_;  // JSON arrays: when (unix_ms), and a CoursePoint
  int64_t last_point_ms_ = 0;
};

}  // namespace foretoken
