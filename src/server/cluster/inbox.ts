import type { BusHandlers, BusMessage } from "./bus.ts";

/** A reader of the messages of other replicas. */
export type InboxReader = {
  /** Takes a message; false leaves the message to the next reader. */
  receive?(message: BusMessage): boolean;
  /** Messages may have been missed: look at the database. */
  onResync?(): void;
};

/**
 * The receiver of the bus: the readers, in the order of `add`. The bus opens before its readers
 * exist; a message that arrives before them is lost, and the first sweep finds its work.
 */
export type Inbox = BusHandlers & { add(reader: InboxReader): void };

export function createInbox(): Inbox {
  const readers: InboxReader[] = [];
  return {
    add: (reader) => void readers.push(reader),
    onMessage: (message) => void readers.some((reader) => reader.receive?.(message)),
    onResync() {
      for (const reader of readers) reader.onResync?.();
    },
  };
}
