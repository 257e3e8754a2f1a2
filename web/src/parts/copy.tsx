import { useSignal } from "@preact/signals";
import { tell } from "./toasts.tsx";

const copiedMs = 2_000;

/** Text to paste elsewhere, and a button that takes it along. */
export function Copyable({ text, label }: { text: string; label: string }) {
  const isCopied = useSignal(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      isCopied.value = true;
      setTimeout(() => {
        isCopied.value = false;
      }, copiedMs);
    } catch {
      // Without TLS browsers keep the clipboard to themselves, this machine apart.
      tell("The browser does not let this page copy. Select the text instead.", true);
    }
  };
  return (
    <div class="copyable">
      <code>{text}</code>
      <button type="button" onClick={copy} aria-label={`Copy ${label}`}>
        {isCopied.value ? "Copied" : "Copy"}
      </button>
    </div>
  );
}
