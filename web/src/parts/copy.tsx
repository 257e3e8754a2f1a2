import { useSignal } from "@preact/signals";
import { tell } from "./toasts.tsx";

const copiedMs = 2_000;

/**
 * Copies a text; false if the browser refuses. Pages without TLS, except on localhost, have no
 * clipboard: there the browser's old command copies a selection. The selected field is beside the
 * button, because a dialog makes the rest of the page inert.
 */
async function copied(text: string, button: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.readOnly = true;
    field.className = "unseen";
    button.after(field);
    field.select();
    const isDone = document.execCommand("copy");
    field.remove();
    button.focus();
    return isDone;
  }
}

/** A button for copying a text. */
export function Copy({ text, what }: { text: string; what: string }) {
  const isCopied = useSignal(false);
  const copy = async (event: MouseEvent) => {
    if (!(await copied(text, event.currentTarget as HTMLElement))) {
      tell("The browser does not let this page copy. Select the text instead.", true);
      return;
    }
    isCopied.value = true;
    setTimeout(() => {
      isCopied.value = false;
    }, copiedMs);
  };
  return (
    <button type="button" onClick={copy} aria-label={`Copy ${what}`}>
      {isCopied.value ? "Copied" : "Copy"}
    </button>
  );
}

/** Text with a copy button. */
export function Copyable({ text, label }: { text: string; label: string }) {
  return (
    <div class="copyable">
      <code>{text}</code>
      <Copy text={text} what={label} />
    </div>
  );
}
