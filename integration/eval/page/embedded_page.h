// The parts of report.html that travel in the program; the build reads them from files (Chart.js from Debian's libjs-chart.js).
#pragma once

#include <string_view>

namespace foretoken {

extern const std::string_view kReportStyle;
extern const std::string_view kReportScript;
extern const std::string_view kChartJs;

}  // namespace foretoken
