// Runs before the first paint, so that the page doesn't flash in another theme than the chosen one.
document.documentElement.dataset.theme = localStorage.getItem("keywarp.theme") ?? "system";
