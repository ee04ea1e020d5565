// The files of the page, in the program; the build reads them from here (Chart.js from Debian's libjs-chart.js).
#pragma once

#include <string_view>

namespace foretoken {

extern const std::string_view kDashboardPage;
extern const std::string_view kDashboardStyle;
extern const std::string_view kDashboardScript;
extern const std::string_view kDashboardChartJs;

}  // namespace foretoken
