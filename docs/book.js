// Tables of class "sortable": a click (or Enter) on a column's head sorts by it, a field above shows matching rows only.
document.addEventListener("DOMContentLoaded", () => {
  const words = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? words.compare(a, b) : a - b);
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const text = (row, column) => row.cells[column].textContent.trim();
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.textContent = head.textContent.trim();
      head.replaceChildren(button);
      for (const row of body.rows) row.cells[column].dataset.head = button.textContent; // phones show it, see book.css
      button.onclick = () => {
        const order = head.ariaSort === "ascending" ? "descending" : "ascending", sign = order === "ascending" ? 1 : -1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        body.append(...[...body.rows].sort((a, b) => sign * compare(text(a, column), text(b, column))));
      };
    });
    const field = Object.assign(document.createElement("input"), { type: "search", className: "filter" });
    field.placeholder = field.ariaLabel = "show only rows with …";
    field.oninput = () => {
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase());
    };
    if (body.rows.length > 20) (table.closest(".pst-scrollable-table-container, .scroll") ?? table).before(field);
  }
});
