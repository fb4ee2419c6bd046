/** The program `diskwright`. */
import { main } from './main.ts';

void main(false);
