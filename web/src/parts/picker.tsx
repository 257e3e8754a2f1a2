import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";

export type PickerProps = {
  label: string;
  value: string;
  /** Label of the empty choice. */
  none: string;
  options: readonly { value: string; label: string }[];
  onChange(value: string): void;
  /** Id of the element, for a separate label. */
  id?: string;
};

/** Maximum of options in a list; with more options the viewer types and chooses among matches. */
const listedMax = 200;
const matchesMax = 50;

/** A choice among many options by name. */
export function Picker(props: PickerProps) {
  return props.options.length > listedMax ? <TypedPicker {...props} /> : <ListedPicker {...props} />;
}

function ListedPicker({ label, value, none, options, onChange, id }: PickerProps) {
  const isKnown = value === "" || options.some((option) => option.value === value);
  return (
    <select
      id={id}
      aria-label={id ? undefined : label}
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
    >
      <option value="">{none}</option>
      {!isKnown && <option value={value}>{value.slice(-8)}</option>}
      {options.map((option) => (
        <option key={option.value} value={option.value}>
          {option.label}
        </option>
      ))}
    </select>
  );
}

/** The choice is a name typed in full or taken from the matches; an empty box means no choice. */
function TypedPicker({ label, value, none, options, onChange, id }: PickerProps) {
  const listId = useId();
  const typed = useSignal("");
  useEffect(() => {
    typed.value = options.find((option) => option.value === value)?.label ?? value.slice(-8);
  }, [value]);
  const wanted = typed.value.toLowerCase();
  const matches: PickerProps["options"][number][] = [];
  for (const option of options) {
    if (option.label.toLowerCase().includes(wanted)) matches.push(option);
    if (matches.length === matchesMax) break;
  }
  const take = (box: HTMLInputElement) => {
    typed.value = box.value;
    const chosen = box.value === "" ? "" : options.find((option) => option.label === box.value)?.value;
    // A form with an incomplete name is not submitted.
    box.setCustomValidity(chosen === undefined ? "Choose one of the names." : "");
    if (chosen !== undefined) onChange(chosen);
  };
  return (
    <>
      <input
        id={id}
        class="picker"
        list={listId}
        aria-label={id ? undefined : label}
        placeholder={none}
        value={typed.value}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => take(event.currentTarget)}
      />
      <datalist id={listId}>
        {matches.map((option) => (
          <option key={option.value} value={option.label} />
        ))}
      </datalist>
    </>
  );
}
