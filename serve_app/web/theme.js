// Runs before the first paint, so that a chosen theme does not flash. The button that chooses it is appearance.js's.
try {
  const theme = JSON.parse(localStorage.getItem("parley.theme") ?? "null");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden or holds something else: the system's theme it is.
}
