"use strict";
// Each header becomes a button that sorts its table: by the number that a cell begins with, else by its text.
// Cells without a value stay last. A second press turns the order round; rows that compare equal keep their order.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
      const rows = [...body.rows];
      const filled = rows.map((row) => row.cells[column]).filter((cell) => cell.textContent !== "");
      const isNumeric = filled.every((cell) => cell.dataset.key !== undefined);
      const value = (row) => (isNumeric ? Number(row.cells[column].dataset.key) : row.cells[column].textContent);
      const isEmpty = (row) => row.cells[column].textContent === "";
      const compare = (a, b) => (isNumeric ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true }));
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => isEmpty(a) - isEmpty(b) || (isEmpty(a) ? 0 : sign * compare(a, b)));
      body.append(...rows);
    });
  });
}
