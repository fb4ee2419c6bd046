/** Where the guest's kernel is unpacked to, with its modules. */
export const guestFolder: string;
