import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

const offered = signal("");
let isRead = false;

/** The version of the daemon that this server gives; empty: none, or not known yet. */
export function useOffered(): string {
  useEffect(() => {
    if (isRead) return;
    isRead = true;
    void read();
  }, []);
  return offered.value;
}

async function read(): Promise<void> {
  try {
    const response = await fetch("downloads/manifest.json");
    if (response.ok) offered.value = String(((await response.json()) as { version?: string }).version ?? "");
  } catch {
    // The device's page is complete without the version.
  }
}
