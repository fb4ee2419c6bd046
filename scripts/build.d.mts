/** Builds what is out of date. True: something was. */
export function build(options?: { readonly types?: boolean; readonly force?: boolean }): Promise<boolean>;
