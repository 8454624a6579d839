// Before anything is painted: the theme that was chosen, so that the page doesn't flash in the other one.
document.documentElement.dataset.theme = localStorage.getItem("keywarp.theme") ?? "system";
