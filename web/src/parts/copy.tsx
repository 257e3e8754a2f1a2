import { useSignal } from "@preact/signals";
import { tell } from "./toasts.tsx";

const copiedMs = 2_000;

/** A button for copying a text. */
export function Copy({ text, what }: { text: string; what: string }) {
  const isCopied = useSignal(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      isCopied.value = true;
      setTimeout(() => {
        isCopied.value = false;
      }, copiedMs);
    } catch {
      // Browsers refuse the clipboard to pages without TLS, except on localhost.
      tell("The browser does not let this page copy. Select the text instead.", true);
    }
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
