import{Ba as n}from"./chunk-H4TQHIY3.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
