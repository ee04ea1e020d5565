// What `foretoken top` shows of observations (docs/dashboard.md), as lines: the same in a terminal and without one. Trouble is told by a
// mark and by words; colour only repeats it.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <string>
#include <vector>

namespace foretoken {

enum class TopTone : unsigned char { kPlain, kTitle, kNotice, kTrouble };

struct TopLine {
  std::string text;
  TopTone tone = TopTone::kPlain;
};

// Of one system, at most `lines_most` lines: engines in trouble first when not all fit.
std::vector<TopLine> TopOf(const boost::json::object& observation, size_t lines_most);

}  // namespace foretoken
