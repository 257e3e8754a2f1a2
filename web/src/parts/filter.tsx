/** The filter box, reached by "/". Each view has at most one. */
export function FilterBox(props: { value: string; onInput(text: string): void; hint: string }) {
  return (
    <label class="filter">
      <span class="unseen">{props.hint}</span>
      <input
        type="search"
        data-filter
        placeholder={props.hint}
        value={props.value}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => props.onInput(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          if (props.value) props.onInput("");
          else event.currentTarget.blur();
        }}
      />
      <kbd>/</kbd>
    </label>
  );
}

/** Makes "/" focus the filter, except in text fields. */
export function startFilterKey(): () => void {
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target as HTMLElement;
    if (at.closest("input, textarea, select, dialog")) return;
    const box = document.querySelector<HTMLElement>("[data-filter]");
    if (!box) return;
    event.preventDefault();
    box.focus();
    if (box instanceof HTMLInputElement) box.select();
  };
  addEventListener("keydown", onKey);
  return () => removeEventListener("keydown", onKey);
}
